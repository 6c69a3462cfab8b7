// The ledger entries of an account, newest first, all or those that a filter names. The filter is a
// part of the address.
import { call } from './key.js';
import { createReading } from './reading.js';
import { addressOf } from './route.js';
import {
  amountCell,
  count,
  duration,
  element,
  input,
  moment,
  numberCell,
  row,
  show,
  textCell,
  timeCell,
} from './show.js';

const PAGE = 50;
/** With a filter a page may hold few entries or none: so many are read at a time. */
const PAGES_AT_ONCE = 10;

/** Those of the API, by their names there. */
const TEXTS = ['type', 'direction', 'reference', 'transferId', 'holdId'];
const TIMES = ['from', 'to'];

/** @typedef {import('../../../shared/contract.ts').Entry} Entry */
/** @typedef {import('../../../shared/contract.ts').EntriesPage} EntriesPage */
/** @typedef {Record<string, string>} Filter */

export function createEntries() {
  const read = createReading('entries-problem');
  let accountId = '';
  /** @type {Filter} */
  let filter = {};
  /** @type {string | null} */
  let next = null;
  let found = 0;

  /** Reads on, until there are entries to show. @param {() => boolean} isLast */
  async function readOn(isLast) {
    element('entries-area').setAttribute('aria-busy', 'true');
    try {
      const before = found;
      for (let page = 0; page < PAGES_AT_ONCE && found === before; page += 1) {
        const query = new URLSearchParams({ limit: String(PAGE), ...filter, ...(next ? { cursor: next } : {}) });
        /** @type {{ body: EntriesPage }} */
        const { body } = await call(`v1/accounts/${encodeURIComponent(accountId)}/entries?${query}`);
        if (!isLast()) return;
        if (next === null) element('entries').replaceChildren();
        element('entries').append(...body.entries.map((entry) => rowOf(accountId, entry)));
        found += body.entries.length;
        next = body.nextCursor;
        if (next === null) break;
      }
      showEnd();
    } finally {
      if (isLast()) element('entries-area').removeAttribute('aria-busy');
    }
  }

  function showEnd() {
    const isFiltered = Object.keys(filter).length > 0;
    element('older').hidden = next === null;
    const what = isFiltered ? 'entry matches' : 'entry is in the ledger yet';
    const where = next === null ? '' : ` among those from version ${count(Number(next))} on`;
    show('entries-note', found === 0 ? `No ${what}${where}.` : '');
  }

  element('older').addEventListener('click', () => void read(readOn));
  element('filter').addEventListener('submit', (event) => {
    event.preventDefault();
    location.hash = addressOf('account', accountId, typedFilter());
  });
  element('filter-clear').addEventListener('click', () => {
    location.hash = addressOf('account', accountId);
  });
  return {
    /** @param {string} id @param {Filter} wanted */
    read(id, wanted) {
      accountId = id;
      filter = Object.fromEntries(
        Object.entries(wanted).filter(([name]) => TEXTS.includes(name) || TIMES.includes(name)),
      );
      next = null;
      found = 0;
      showFilter(filter);
      return read(readOn);
    },
    filter: () => filter,
  };
}

/** @returns {Filter} */
function typedFilter() {
  const value = (/** @type {string} */ name) => input(`filter-${name}`).value.trim();
  const texts = TEXTS.map((name) => [name, value(name)]);
  const times = TIMES.map((name) => [name, value(name) === '' ? '' : new Date(value(name)).toISOString()]);
  return Object.fromEntries([...texts, ...times]);
}

/** @param {Filter} filter */
function showFilter(filter) {
  for (const name of TEXTS) input(`filter-${name}`).value = filter[name] ?? '';
  for (const name of TIMES) input(`filter-${name}`).value = localTime(filter[name]);
  const said = [...TEXTS, ...TIMES]
    .filter((name) => filter[name])
    .map((name) => `${labelOf(name)} ${TIMES.includes(name) ? moment(filter[name] ?? '') : filter[name]}`);
  show('filter-summary', said.length === 0 ? 'Filter' : `Filter: ${said.join(', ')}`);
  element('filter-clear').hidden = said.length === 0;
}

/** The first words of its field's label: from. @param {string} name */
const labelOf = (name) => (input(`filter-${name}`).labels?.[0]?.textContent ?? name).split(',')[0]?.toLowerCase();

/** As a field for a time takes it: of this browser's zone, without naming it. @param {string} [time] */
function localTime(time) {
  const at = new Date(time ?? '');
  if (Number.isNaN(at.getTime())) return '';
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

/** @param {string} accountId @param {Entry} entry */
function rowOf(accountId, { version, type, amount, balance, held, reference, transferId, hold, actor, ...times }) {
  const waitedMs = new Date(times.recordedAt).getTime() - new Date(times.createdAt).getTime();
  return row([
    numberCell(version),
    { text: type },
    amountCell(amount),
    ...[balance, held].map(numberCell),
    textCell(reference),
    {
      links: [
        ...(transferId ? [{ text: 'transfer', href: addressOf('transfer', transferId) }] : []),
        ...(hold ? [{ text: `hold ${hold.id}`, href: addressOf('account', accountId, { holdId: hold.id }) }] : []),
      ],
      className: 'text',
      title: hold ? `hold ${hold.id}: ${hold.status}, ${count(hold.remaining)} remain` : '',
    },
    textCell(actor),
    timeCell(times.createdAt),
    { text: duration(Math.max(0, waitedMs)), className: 'number' },
  ]);
}
