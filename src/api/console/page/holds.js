// The active holds of an account, and when each expires.
import { call } from './key.js';
import { createReading } from './reading.js';
import { addressOf } from './route.js';
import { distance, element, linkCell, numberCell, row, timeCell } from './show.js';

const PAGE = 20;

/** @typedef {import('../../../shared/contract.ts').HoldsPage} HoldsPage */

export function createHolds() {
  const read = createReading('holds-problem');
  let accountId = '';
  /** @type {string | null} */
  let next = null;

  /** @param {() => boolean} isLast */
  async function readOn(isLast) {
    const query = new URLSearchParams({ status: 'active', limit: String(PAGE), ...(next ? { cursor: next } : {}) });
    /** @type {{ body: HoldsPage }} */
    const { body } = await call(`v1/accounts/${encodeURIComponent(accountId)}/holds?${query}`);
    if (!isLast()) return;
    if (next === null) element('holds').replaceChildren();
    element('holds').append(...body.holds.map(rowOf));
    next = body.nextCursor;
    element('holds-view').hidden = element('holds').childElementCount === 0;
    element('holds-more').hidden = next === null;
  }

  element('holds-more').addEventListener('click', () => void read(readOn));
  return {
    /** @param {string} id */
    read(id) {
      accountId = id;
      next = null;
      return read(readOn);
    },
  };
}

/** @param {HoldsPage['holds'][number]} hold */
const rowOf = ({ accountId, holdId, remaining, captured, createdAt, expiresAt }) =>
  row([
    linkCell(holdId, addressOf('account', accountId, { holdId })),
    ...[remaining, captured].map(numberCell),
    timeCell(createdAt),
    ...(expiresAt === null ? [{ text: 'never' }, {}] : [{ text: distance(expiresAt) }, timeCell(expiresAt)]),
  ]);
