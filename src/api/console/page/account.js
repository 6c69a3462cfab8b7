// One account: what it is worth, how it came to that, and whether its history holds together.
import { createEntries } from './entries.js';
import { createHolds } from './holds.js';
import { CallFailed, call } from './key.js';
import { createPlot } from './plot.js';
import { createReading } from './reading.js';
import { addressOf } from './route.js';
import { count, element, mark, show } from './show.js';

/** @typedef {import('../balance-points.ts').BalancePoints} BalancePoints */
/** @typedef {import('../../../shared/contract.ts').Account} Account */
/** @typedef {import('./route.js').Place} Place */

/** @param {string} id */
const pathOf = (id) => `v1/accounts/${encodeURIComponent(id)}`;

export function createAccount() {
  const plot = createPlot(element('balance-plot'), {
    series: [{ label: 'balance', colour: 'accent', fill: true, stepped: true }],
  });
  const entries = createEntries();
  const holds = createHolds();
  const read = createReading('account-problem');
  let id = '';
  let isShown = false;

  /** @param {string} wanted @param {Record<string, string>} filter */
  const open = (wanted, filter) =>
    read(async (isLast) => {
      if (wanted !== id) element('account-view').hidden = true;
      id = wanted;
      isShown = false;
      show('account-id', id);
      element('account-try').setAttribute('href', addressOf('try', id));
      element('account-changed').hidden = true;
      const [account, head, balances] = await Promise.all([
        call(pathOf(id)),
        call(`${pathOf(id)}/chain-head`),
        call(`console/accounts/${encodeURIComponent(id)}/balances`),
        entries.read(id, filter),
        holds.read(id),
      ]);
      if (!isLast()) return;
      isShown = true;
      element('account-view').hidden = false;
      showAccount(account.body);
      show('head', head.body.version === null ? 'none yet' : `version ${head.body.version}: ${head.body.hash}`);
      showBalances(plot, balances.body);
      await verify(id, isLast);
    });

  element('refresh').addEventListener('click', () => open(id, entries.filter()));
  return {
    /** @param {Place} place @param {Place} [before] */
    show({ of, more }, before) {
      const isOnlyFiltered = isShown && before?.view === 'account' && of === id;
      void (isOnlyFiltered ? entries.read(id, more) : open(of, more)).then(() => {
        if (Object.keys(more).length > 0) element('entries-title').scrollIntoView();
      });
    },
    /** @param {import('../../../shared/contract.ts').BalanceEvent[]} events */
    onEvents(events) {
      if (events.some(({ subject }) => subject === id)) element('account-changed').hidden = false;
    },
  };
}

/** @param {Account} account */
function showAccount({ balance, available, held, version, asset, overdraftLimit, maxBalance, status }) {
  show('account-balance', count(balance));
  show('account-asset', asset);
  show('account-available', count(available));
  show('account-held', `${count(held)} held`);
  show('account-version', count(version));
  show('account-limit', count(overdraftLimit));
  show('account-max', maxBalance === null ? 'no highest balance' : `highest balance ${count(maxBalance)}`);
  show('account-status', status);
  mark('status-tile', status === 'open' ? 'good' : 'warn');
}

/** @param {ReturnType<typeof createPlot>} plot @param {BalancePoints} balances */
function showBalances(plot, { points, every, ledgerVersion }) {
  show('account-ledger', ledgerVersion === null ? 'none in the ledger yet' : `${count(ledgerVersion)} in the ledger`);
  plot.show([points.map(([atMs]) => atMs / 1000), points.map(([, balance]) => balance)]);
  show(
    'plot-note',
    every === 1
      ? `all ${count(points.length)} entries`
      : `one of ${count(every)} entries up to version ${count(ledgerVersion)}; those between are not drawn`,
  );
}

/** @param {string} id @param {() => boolean} isLast */
async function verify(id, isLast) {
  show('verified', '…');
  show('verified-note', '');
  mark('verified-tile', '');
  try {
    const { body } = await call(`${pathOf(id)}/verification`);
    if (!isLast()) return;
    const onTheirWay = body.pendingChanges > 0 ? `, ${count(body.pendingChanges)} on their way` : '';
    show('verified', body.verified ? 'yes' : 'no');
    show(
      'verified-note',
      body.verified
        ? `${count(body.ledgerEntries)} entries${onTheirWay}; ${count(body.unchainedEntries)} without a hash yet`
        : body.problems.join('; '),
    );
    mark('verified-tile', body.verified ? 'good' : 'bad');
  } catch (error) {
    if (!isLast()) return;
    show('verified', 'not known');
    show('verified-note', error instanceof CallFailed ? error.message : String(error));
  }
}
