// One transfer: all of its legs, each with its account.
import { call } from './key.js';
import { createReading } from './reading.js';
import { addressOf } from './route.js';
import { amountCell, element, linkCell, moment, numberCell, row, show } from './show.js';

/** @typedef {import('../../../shared/contract.ts').PastTransfer} PastTransfer */

export function createTransfer() {
  const read = createReading('transfer-problem');
  return {
    /** @param {import('./route.js').Place} place */
    show({ of: id }) {
      element('transfer-view').hidden = true;
      void read(async (isLast) => {
        const { body } = await call(`v1/transfers/${encodeURIComponent(id)}`);
        if (isLast()) showTransfer(body);
      });
    },
  };
}

/** @param {PastTransfer} transfer */
function showTransfer({ transferId, legs, createdAt, reference, actor, reverses }) {
  element('transfer-view').hidden = false;
  show('transfer-id', transferId);
  show('transfer-at', moment(createdAt));
  show('transfer-note', reference ?? 'none');
  show('transfer-by', actor ?? 'not known: no API key was needed');
  show('transfer-reverses', reverses ?? 'nothing');
  element('legs').replaceChildren(
    ...legs.map(({ accountId, amount, balance, version }) =>
      row([
        linkCell(accountId, addressOf('account', accountId)),
        amountCell(amount),
        numberCell(balance),
        numberCell(version),
      ]),
    ),
  );
}
