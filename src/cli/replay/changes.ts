// Reads past changes from the database, account by account, in pages: bounded memory, and no
// statement is long.

import type { Client } from '../../shared/database.ts';
import { changedAccounts } from './changed-accounts.ts';
import { PAGE_ROWS, type Page, type Position, pageOf, readPage, type Selection } from './page.ts';

const LIMIT = `LIMIT ${PAGE_ROWS}`;

/** On from a change, up to another. */
const WALK = pageOf(
  (columns, table) => `
  SELECT ${columns} FROM ${table}
  WHERE (account_id, version) > ($5, $6) AND (account_id, version) <= ($7, $8) ORDER BY account_id, version ${LIMIT}`,
  LIMIT,
);

/** Of several accounts what each has after one version and up to another. */
const OF_ACCOUNTS = pageOf(
  (columns, table) => `
  SELECT change.* FROM unnest($5::text[], $6::bigint[], $7::bigint[]) AS span (id, before, last)
  CROSS JOIN LATERAL (
    SELECT ${columns} FROM ${table} WHERE account_id = span.id AND version > span.before AND version <= span.last
  ) change`,
);

/** After every account id in byte order. */
const BEHIND_ALL = '~';

/**
 * In the order of accounts and versions. Includes everything committed when an account is reached.
 * @param client outside a transaction: each page is one of its own. @param after continue after
 * this change.
 */
export async function* readChanges(
  client: Client,
  selection: Selection,
  after: Position | undefined,
): AsyncGenerator<Page> {
  const { accountId, fromVersion = 0, toVersion = Number.MAX_SAFE_INTEGER, from } = selection;
  if (accountId !== undefined) {
    const first = { accountId, version: fromVersion - 1 };
    return yield* walk(client, selection, later(first, after), { accountId, version: toVersion });
  }
  const start = after ?? { accountId: '', version: -1 };
  if (!from) return yield* walk(client, selection, start, { accountId: BEHIND_ALL, version: 0 });
  for await (const accounts of changedAccounts(client, from, start)) {
    const [first] = accounts;
    if (accounts.length === 1 && first) {
      const { accountId } = first;
      yield* walk(client, selection, { accountId, version: first.before }, { accountId, version: first.last });
    } else {
      const values = [accounts.map((each) => each.accountId), accounts.map(({ before }) => before)];
      const page = await readPage(client, OF_ACCOUNTS, selection, [...values, accounts.map(({ last }) => last)]);
      if (page) yield page;
    }
  }
}

async function* walk(client: Client, selection: Selection, start: Position, end: Position): AsyncGenerator<Page> {
  for (let last = start; ; ) {
    const page = await readPage(client, WALK, selection, [last.accountId, last.version, end.accountId, end.version]);
    if (!page) return;
    last = page.last;
    yield page;
  }
}

/** The later one: ids are ASCII, so this is their order in the database. */
function later(one: Position, other: Position | undefined): Position {
  if (!other || other.accountId < one.accountId) return one;
  return other.accountId > one.accountId || other.version > one.version ? other : one;
}
