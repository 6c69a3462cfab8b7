// One account: what it is worth, how it came to that, and whether its history holds together.
import { CallFailed, call } from './key.js';
import { createPlot } from './plot.js';
import { count, direction, duration, element, input, mark, moment, row, show, signed } from './show.js';

const PAGE = 100;
const ROWS_SHOWN = 50;
const SUGGESTIONS = 10;
const TYPING_MS = 200;

/** @typedef {import('../balance-points.ts').BalancePoints} BalancePoints */
/** @typedef {import('../../../shared/contract.ts').Entry} Entry */

export function createAccount() {
  const plot = createPlot(element('balance-plot'), {
    series: [{ label: 'balance', colour: 'accent', fill: true, stepped: true }],
  });
  let shown = '';
  /** @type {Entry[]} newest first */
  let entries = [];
  /** @type {string | null} */
  let next = null;
  let rowsShown = ROWS_SHOWN;
  let asked = 0;

  /** @param {string} id */
  const path = (id) => `v1/accounts/${encodeURIComponent(id)}`;

  /** @param {() => Promise<void>} work */
  async function attempt(work) {
    element('account-problem').textContent = '';
    try {
      await work();
    } catch (error) {
      element('account-problem').textContent = error instanceof Error ? error.message : String(error);
    }
  }

  /** @param {string} id */
  async function open(id) {
    asked += 1;
    const mine = asked;
    element('account-view').hidden = true;
    await attempt(async () => {
      const [account, page, head, balances, holds] = await Promise.all([
        call(path(id)),
        call(`${path(id)}/entries?limit=${PAGE}`),
        call(`${path(id)}/chain-head`),
        call(`console/accounts/${encodeURIComponent(id)}/balances`),
        call(`${path(id)}/holds?status=active&limit=${PAGE}`),
      ]);
      if (mine !== asked) return; // another one was asked for meanwhile
      shown = id;
      entries = page.body.entries;
      next = page.body.nextCursor;
      rowsShown = ROWS_SHOWN;
      element('account-view').hidden = false;
      show('account-id', id);
      show('account-balance', count(account.body.balance));
      show('account-available', count(account.body.available));
      show('account-held', `${count(account.body.held)} held`);
      showHolds(holds.body);
      show('account-version', count(account.body.version));
      const { ledgerVersion } = page.body;
      show(
        'account-ledger',
        ledgerVersion === null ? 'none in the ledger yet' : `${count(ledgerVersion)} in the ledger`,
      );
      show('account-asset', account.body.asset);
      show('account-limit', count(account.body.overdraftLimit));
      show('account-status', account.body.status);
      show('head', head.body.version === null ? 'none yet' : `version ${head.body.version}: ${head.body.hash}`);
      showBalances(balances.body);
      showEntries();
      await verify(mine);
    });
  }

  /** @param {number} mine */
  async function verify(mine) {
    show('verified', '…');
    show('verified-note', '');
    mark('verified-tile', '');
    try {
      const { body } = await call(`${path(shown)}/verification`);
      if (mine !== asked) return;
      show('verified', body.verified ? 'yes' : 'no');
      show(
        'verified-note',
        body.verified
          ? `${count(body.ledgerEntries)} entries${body.pendingChanges > 0 ? `, ${count(body.pendingChanges)} on their way` : ''}; ${count(body.unchainedEntries)} without a hash yet`
          : body.problems.join('; '),
      );
      mark('verified-tile', body.verified ? 'good' : 'bad');
    } catch (error) {
      if (mine !== asked) return;
      show('verified', 'not known');
      show('verified-note', error instanceof CallFailed ? error.message : String(error));
    }
  }

  /** @param {import('../../../shared/contract.ts').HoldsPage} page */
  function showHolds({ holds, nextCursor }) {
    element('holds-view').hidden = holds.length === 0;
    show('holds-note', nextCursor === null ? 'Active holds' : `Active holds, the first ${count(holds.length)} by id`);
    element('holds').replaceChildren(
      ...holds.map((hold) =>
        row([
          { text: hold.holdId, className: 'text' },
          { text: count(hold.remaining), className: 'number' },
          { text: count(hold.captured), className: 'number' },
          { text: moment(hold.createdAt) },
          { text: hold.expiresAt === null ? 'never' : moment(hold.expiresAt) },
        ]),
      ),
    );
  }

  /** @param {BalancePoints} balances */
  function showBalances({ points, every, ledgerVersion }) {
    plot.show([points.map(([atMs]) => atMs / 1000), points.map(([, balance]) => balance)]);
    show(
      'plot-note',
      every === 1
        ? `all ${count(points.length)} entries`
        : `one of ${count(every)} entries up to version ${count(ledgerVersion)}: what lies between is not drawn`,
    );
  }

  function showEntries() {
    element('entries').replaceChildren(
      ...entries.slice(0, rowsShown).map((entry) =>
        row([
          { text: count(entry.version), className: 'number' },
          { text: entry.type, className: 'text' },
          { text: signed(entry.amount), className: direction(entry.amount) },
          { text: count(entry.balance), className: 'number' },
          { text: count(entry.held), className: 'number' },
          { text: entry.reference ?? '', className: 'text', title: entry.reference ?? '' },
          { text: entry.actor ?? '', className: 'text' },
          { text: moment(entry.createdAt) },
          {
            text: duration(Math.max(0, new Date(entry.recordedAt).getTime() - new Date(entry.createdAt).getTime())),
            className: 'number',
          },
        ]),
      ),
    );
    element('older').hidden = next === null && rowsShown >= entries.length;
  }

  element('older').addEventListener('click', () =>
    attempt(async () => {
      rowsShown += ROWS_SHOWN;
      if (rowsShown > entries.length && next !== null) {
        const mine = asked;
        const { body } = await call(`${path(shown)}/entries?limit=${PAGE}&cursor=${next}`);
        if (mine !== asked) return;
        entries = [...entries, ...body.entries];
        next = body.nextCursor;
      }
      showEntries();
    }),
  );
  element('refresh').addEventListener('click', () => open(shown));
  element('find').addEventListener('submit', (event) => {
    event.preventDefault();
    const id = input('find-id').value.trim();
    if (id !== '') void open(id);
  });

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let typing;
  input('find-id').addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(async () => {
      const prefix = input('find-id').value.trim();
      if (prefix === '') return;
      const page = await call(`v1/accounts?limit=${SUGGESTIONS}&prefix=${encodeURIComponent(prefix)}`).catch(
        () => undefined,
      );
      if (!page || prefix !== input('find-id').value.trim()) return;
      element('found').replaceChildren(
        .../** @type {{ id: string }[]} */ (page.body.accounts).map(({ id }) =>
          Object.assign(document.createElement('option'), { value: id }),
        ),
      );
    }, TYPING_MS);
  });
  return { open };
}
