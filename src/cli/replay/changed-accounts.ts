// Finds the accounts that changed since a moment, and from which version on, so that recent changes
// are read without older ones. This needs no index by time: each account has the time of its last
// change, and its entries are in order of time.
import type { Client } from '../../shared/database.ts';
import { PAGE_ROWS, type Position, readHeld } from './page.ts';

/** What an account changed: after one version, up to the last that it has now. */
export interface ChangedAccount {
  accountId: string;
  before: number;
  last: number;
}

/** Accounts that one statement looks at: to see when they changed, and to search the entries of those that did. */
const LOOK_ROWS = 20_000;
const SEARCH_ROWS = 1000;

const LOOK = `
  SELECT max(account_id::text) AS last, array_agg(account_id::text ORDER BY account_id) FILTER (WHERE updated_at >= $2) AS changed
  FROM (SELECT account_id, updated_at FROM account WHERE account_id >= $1 ORDER BY account_id LIMIT ${LOOK_ROWS}) looked`;

// Bisection. Changes that the ledger still lacks count as new, which errs on the side of reading
// too much.
const SEARCH = `
  WITH RECURSIVE search (account_id, last, low, high) AS (
    SELECT account_id, version, -1::bigint, version FROM account WHERE account_id = ANY ($1::text[])
    UNION ALL
    SELECT account_id, last, CASE WHEN is_before THEN middle ELSE low END, CASE WHEN is_before THEN high ELSE middle - 1 END
    FROM (SELECT *, (low + high + 1) / 2 AS middle FROM search WHERE low < high) AS half
    CROSS JOIN LATERAL (
      SELECT coalesce((
        SELECT created_at < $2 FROM ledger
        WHERE ledger.account_id = half.account_id AND ledger.version >= half.middle ORDER BY ledger.version LIMIT 1
      ), false) AS is_before
    ) probe
  )
  SELECT account_id AS "accountId", low AS before, last FROM search WHERE low = high ORDER BY account_id`;

/** By id, in groups whose changes fit a page; an account with more is a group of its own. */
export async function* changedAccounts(client: Client, from: Date, after: Position): AsyncGenerator<ChangedAccount[]> {
  for (let start = after.accountId; ; ) {
    const [{ last, changed }] = (await readHeld(client, LOOK, [start, from])) as [Look];
    for (let at = 0; at < (changed?.length ?? 0); at += SEARCH_ROWS) {
      const rows: ChangedAccount[] = await readHeld(client, SEARCH, [changed?.slice(at, at + SEARCH_ROWS), from]);
      yield* inGroups(rows.map((row) => (row.accountId === after.accountId ? notBefore(row, after) : row)));
    }
    if (last === null) return;
    start = `${last} `; // the next one: no id has a blank, and nothing comes between
  }
}

interface Look {
  last: string | null;
  changed: string[] | null;
}

function notBefore(account: ChangedAccount, { version }: Position): ChangedAccount {
  return { ...account, before: Math.max(account.before, version) };
}

function* inGroups(accounts: readonly ChangedAccount[]): Generator<ChangedAccount[]> {
  let group: ChangedAccount[] = [];
  let changes = 0;
  for (const account of accounts) {
    const count = account.last - account.before;
    if (count <= 0) continue;
    if (group.length > 0 && changes + count > PAGE_ROWS) {
      yield group;
      group = [];
      changes = 0;
    }
    group.push(account);
    changes += count;
  }
  if (group.length > 0) yield group;
}
