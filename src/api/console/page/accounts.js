// The list of accounts, all or those whose id begins with what was typed, and a form that creates
// one.
import { CallFailed, call } from './key.js';
import { createReading } from './reading.js';
import { addressOf, placeNow } from './route.js';
import { element, input, linkCell, numberCell, row, show, showNoRow, timeCell } from './show.js';

const PAGE = 50;
const TYPING_MS = 200;

/** @typedef {import('../../../shared/contract.ts').AccountsPage} AccountsPage */
/** @typedef {import('../../../shared/contract.ts').Account} Account */

export function createAccounts() {
  const read = createReading('accounts-problem');
  /** @type {Account[]} */
  let shown = [];

  /** @param {string} prefix @param {string} cursor */
  const list = (prefix, cursor) =>
    read(async (isLast) => {
      const query = new URLSearchParams({
        limit: String(PAGE),
        ...(prefix ? { prefix } : {}),
        ...(cursor ? { cursor } : {}),
      });
      /** @type {{ body: AccountsPage }} */
      const { body } = await call(`v1/accounts?${query}`);
      if (!isLast()) return;
      shown = body.accounts;
      showAccounts(body, prefix, cursor);
    });

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let typing;
  /** What was typed is the address at once, without a step of history for each letter. */
  const listTyped = () => {
    clearTimeout(typing);
    const prefix = input('find-id').value.trim();
    history.replaceState(null, '', addressOf('accounts', prefix));
    return list(prefix, '');
  };
  input('find-id').addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(listTyped, TYPING_MS);
  });
  element('find').addEventListener('submit', async (event) => {
    event.preventDefault();
    await listTyped();
    const id = input('find-id').value.trim();
    const found = shown.find((account) => account.id === id) ?? (shown.length === 1 ? shown[0] : undefined);
    if (found && id !== '' && placeNow().view === 'accounts') location.hash = addressOf('account', found.id);
  });
  element('create').addEventListener('submit', create);
  return {
    /** @param {import('./route.js').Place} place */
    show({ of: prefix, more: { after = '' } }) {
      clearTimeout(typing);
      if (input('find-id').value.trim() !== prefix) input('find-id').value = prefix;
      void list(prefix, after);
    },
  };
}

/** @param {AccountsPage} page @param {string} prefix @param {string} cursor */
function showAccounts({ accounts, nextCursor }, prefix, cursor) {
  element('accounts-list').replaceChildren(...accounts.map(rowOf));
  if (accounts.length === 0) {
    showNoRow('accounts-list', prefix === '' ? 'no accounts yet' : `no account begins with ${prefix}`);
  }
  const [first, next] = [element('accounts-first'), element('accounts-next')];
  first.hidden = cursor === '';
  next.hidden = nextCursor === null;
  first.setAttribute('href', addressOf('accounts', prefix));
  next.setAttribute('href', addressOf('accounts', prefix, { after: nextCursor ?? '' }));
}

/** @param {Account} account */
const rowOf = ({ id, asset, balance, available, held, status, version, updatedAt }) =>
  row([
    linkCell(id, addressOf('account', id)),
    { text: asset },
    ...[balance, available, held].map(numberCell),
    { text: status },
    numberCell(version),
    timeCell(updatedAt),
  ]);

/** @param {Event} event */
async function create(event) {
  event.preventDefault();
  show('create-problem', '');
  const value = (/** @type {string} */ name) => input(`create-${name}`).value.trim();
  const number = (/** @type {string} */ name) => (value(name) === '' ? undefined : Number(value(name)));
  const body = {
    id: value('id'),
    asset: value('asset') || undefined,
    overdraftLimit: number('overdraft'),
    maxBalance: number('max'),
  };
  try {
    await call('v1/accounts', { method: 'POST', body });
    location.hash = addressOf('account', body.id);
  } catch (error) {
    show('create-problem', error instanceof CallFailed ? error.message : String(error));
  }
}
