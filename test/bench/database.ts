// A database of its own for each run, copied from a template, and what the benchmark asks it.
import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { APPLY, parametersOf } from '../../src/api/updates/batch.ts';
import { fingerprintOf } from '../../src/api/updates/fingerprint.ts';
import type { Operation } from '../../src/api/updates/operation.ts';
import { openClient } from '../../src/shared/database.ts';
import { migrate } from '../../src/shared/migrations.ts';
import { accountId, EVEN_ACCOUNTS, HOT_ACCOUNT } from './accounts.ts';
import type { Variant } from './variants.ts';

const TEMPLATE = 'bench_template';
const POLL_INTERVAL_MS = 50;
const SETTLE_POLL_MS = 100;

const urlOf = (serverUrl: string, name: string) => {
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return url.href;
};

export async function administer(serverUrl: string, ...statements: string[]): Promise<void> {
  const client = await openClient(serverUrl, 'bench');
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}

/** In one statement: their openings are entries of the ledger already, as if they were from long ago. */
const INSERT_ACCOUNTS = `
  WITH opened AS (
    INSERT INTO account (account_id, overdraft_limit, epoch, created_at, updated_at)
    SELECT id, 1000000000000, (SELECT current_epoch()), now(), now() FROM unnest($1::text[]) AS id
    RETURNING *
  )
  INSERT INTO ledger (
    account_id, version, epoch, amount, held_change, balance, held, created_at, type, asset, overdraft_limit, max_balance, status
  )
  SELECT account_id, 0, epoch, 0, 0, 0, 0, created_at, 'account.opened', asset, overdraft_limit, max_balance, status
  FROM opened ORDER BY account_id`;

async function insertAccounts(client: pg.Client, first: number, count: number): Promise<void> {
  await client.query(INSERT_ACCOUNTS, [Array.from({ length: count }, (_, index) => accountId(first + index))]);
}

/** Makes what {@link createDatabase} copies: the schema, the even accounts and the hot one. */
export async function createTemplate(serverUrl: string): Promise<void> {
  await administer(serverUrl, `CREATE DATABASE ${TEMPLATE}`);
  const url = urlOf(serverUrl, TEMPLATE);
  await migrate(url);
  const client = await openClient(url, 'bench');
  await insertAccounts(client, 0, EVEN_ACCOUNTS);
  await client.query(INSERT_ACCOUNTS, [[HOT_ACCOUNT]]);
  // Of old entries: else the worker would hash them during the load.
  await client.query('SELECT extend_ledger_chain(array_agg(account_id), $1) FROM account', [EVEN_ACCOUNTS + 1]);
  // Not the empty tables: their statistics are those of a new installation, none.
  await client.query('VACUUM ANALYZE account, ledger');
  await client.end();
}

export interface BenchDatabase {
  url: string;
  client: pg.Client;
  drop(): Promise<void>;
}

let made = 0;

/** Starts after a checkpoint, as every run does, and with what the variant wants to be there. */
export async function createDatabase(
  serverUrl: string,
  { extraAccounts, ledgerRows, activeHolds }: Pick<Variant, 'extraAccounts' | 'ledgerRows' | 'activeHolds'>,
): Promise<BenchDatabase> {
  const name = `bench_${++made}`;
  await administer(serverUrl, `CREATE DATABASE ${name} TEMPLATE ${TEMPLATE}`, 'CHECKPOINT');
  const url = urlOf(serverUrl, name);
  const client = await openClient(url, 'bench');
  if (extraAccounts > 0) await setAccounts(client, extraAccounts);
  if (ledgerRows > 0) await fillLedger(client, ledgerRows);
  if (activeHolds > 0) await placeHolds(client, activeHolds);
  return {
    url,
    client,
    async drop() {
      await client.end();
      await administer(serverUrl, `DROP DATABASE ${name} WITH (FORCE)`);
    },
  };
}

/** A thousand at a time: what a batch may hold. */
const HOLDS_PER_BATCH = 1000;

async function placeHolds(client: pg.Client, count: number): Promise<void> {
  const leg = {
    ...{ accountId: HOT_ACCOUNT, amount: 1, reference: null, metadata: null },
    expectedVersion: null,
    upTo: false,
  };
  for (let first = 0; first < count; first += HOLDS_PER_BATCH) {
    const batch = Array.from({ length: Math.min(HOLDS_PER_BATCH, count - first) }, (_, index): Operation => {
      const holdId = `active-${first + index}`;
      return {
        ...{
          kind: 'hold',
          legs: [leg],
          keyAccountId: HOT_ACCOUNT,
          idempotencyKey: null,
          actor: null,
          traceparent: null,
        },
        fingerprint: fingerprintOf('hold', { accountId: HOT_ACCOUNT, holdId, amount: 1 }),
        hold: { holdId, expiresInS: 86_400 },
      };
    });
    await client.query({ ...APPLY, values: parametersOf(batch) });
  }
}

async function setAccounts(client: pg.Client, count: number): Promise<void> {
  if (count > EVEN_ACCOUNTS) await insertAccounts(client, EVEN_ACCOUNTS, count - EVEN_ACCOUNTS);
  else {
    const surplus = `account_id <> '${HOT_ACCOUNT}' AND substr(account_id, 2)::integer >= ${count}`;
    await client.query('ALTER TABLE ledger DISABLE TRIGGER USER');
    await client.query(`DELETE FROM ledger WHERE ${surplus}`);
    await client.query(`DELETE FROM account WHERE ${surplus}`);
    for (const trigger of ['ledger_rows_are_final', 'ledger_is_append_only']) {
      await client.query(`ALTER TABLE ledger ENABLE ALWAYS TRIGGER ${trigger}`);
    }
  }
  await client.query('VACUUM ANALYZE account, ledger');
  await client.query('CHECKPOINT');
}

/** A history of equal length for each even account, as if every change had been +1. */
async function fillLedger(client: pg.Client, rows: number): Promise<void> {
  const versions = Math.ceil(rows / EVEN_ACCOUNTS);
  await client.query(
    `INSERT INTO ledger (
       account_id, version, epoch, previous_epoch, amount, held_change, balance, held, created_at, type, asset
     )
     SELECT account_id, number, epoch, epoch, 1, 0, number, 0, updated_at, 'balance.credited', asset
     FROM account CROSS JOIN generate_series(1, $1::integer) AS number
     WHERE account_id <> '${HOT_ACCOUNT}'
     ORDER BY account_id, number`,
    [versions],
  );
  await client.query(`UPDATE account SET balance = $1, version = $1 WHERE account_id <> '${HOT_ACCOUNT}'`, [versions]);
  await client.query('VACUUM ANALYZE');
  await client.query('CHECKPOINT');
}

/** Effects in the database, by operation: an update adds 1 to a balance, the others are two versions; usual has none. */
const EFFECTS: Record<Variant['operation'], string> = {
  update: 'SELECT sum(balance) AS total FROM account',
  transfer: 'SELECT sum(greatest(balance, -balance, version)) / 2 AS total FROM account',
  payout: 'SELECT sum(greatest(balance, -balance, version)) / 2 AS total FROM account',
  hold: `SELECT sum(version) / 2 AS total FROM account WHERE account_id = '${HOT_ACCOUNT}'`,
};

/** So many operations took effect. Waits for those that are still in flight. */
export async function settledTotal(
  { client }: BenchDatabase,
  { operation }: Pick<Variant, 'operation'> = { operation: 'update' },
): Promise<number> {
  let before = -1;
  for (;;) {
    const total: number = Math.floor(Number((await client.query(EFFECTS[operation])).rows[0].total));
    if (total === before) return total;
    before = total;
    await delay(SETTLE_POLL_MS);
  }
}

// Cheap, so that asking often costs nothing; verify has the last word.
const NEWEST_RECORDED = `
  SELECT EXISTS (
    SELECT FROM ledger WHERE ledger.account_id = newest.account_id AND ledger.version = newest.version
  ) AS recorded
  FROM (SELECT account_id, version FROM outbox ORDER BY position DESC LIMIT 1) AS newest`;

const PENDING = `
  SELECT count(*) AS pending FROM outbox
  WHERE NOT EXISTS (SELECT FROM ledger WHERE (ledger.account_id, ledger.version) = (outbox.account_id, outbox.version))`;

export async function pendingChanges({ client }: BenchDatabase): Promise<number> {
  return (await client.query(PENDING)).rows[0].pending;
}

/** Waits until the ledger holds every change; false when the time is over before. */
export async function drained(database: BenchDatabase, timeoutMs: number): Promise<boolean> {
  const { client } = database;
  await client.query('SET enable_seqscan = off');
  try {
    for (const deadline = Date.now() + timeoutMs; Date.now() < deadline; await delay(POLL_INTERVAL_MS)) {
      const [newest] = (await client.query(NEWEST_RECORDED)).rows;
      if (newest?.recorded === false) continue;
      if ((await pendingChanges(database)) === 0) return true;
    }
    return false;
  } finally {
    await client.query('RESET enable_seqscan');
  }
}

/** Milliseconds since 1970; 0 of an empty ledger. */
export async function lastRecordedAtMs({ client }: BenchDatabase): Promise<number> {
  return (
    (await client.query<{ at: Date | null }>('SELECT max(recorded_at) AS at FROM ledger')).rows[0]?.at?.getTime() ?? 0
  );
}

/** From the time of a change to that of its entry, of all versions after this one of the hot account. */
export async function ledgerLag(
  { client }: BenchDatabase,
  after: number,
): Promise<{ changes: number; p50Ms: number; p99Ms: number; maxMs: number }> {
  const query = `
    SELECT count(*) AS changes, percentile_disc(0.5) WITHIN GROUP (ORDER BY ms) AS "p50Ms",
           percentile_disc(0.99) WITHIN GROUP (ORDER BY ms) AS "p99Ms", max(ms) AS "maxMs"
    FROM (
      SELECT extract(epoch FROM recorded_at - created_at)::float8 * 1000 AS ms FROM ledger
      WHERE account_id = $1 AND version > $2
    ) entries`;
  return (await client.query(query, [HOT_ACCOUNT, after])).rows[0];
}

/** On disk, indexes included. */
export async function outboxBytes({ client }: BenchDatabase): Promise<number> {
  const query = `SELECT pg_total_relation_size('outbox_even') + pg_total_relation_size('outbox_odd') AS bytes`;
  return (await client.query(query)).rows[0].bytes;
}

const HOLDS: Record<Exclude<Variant['hold'], 'nothing'>, string[]> = {
  snapshot: ['BEGIN ISOLATION LEVEL REPEATABLE READ', 'SELECT count(*) FROM pg_class'],
  dump: [
    'BEGIN ISOLATION LEVEL REPEATABLE READ',
    'LOCK TABLE account, idempotency_key, outbox, relay_progress, ledger IN ACCESS SHARE MODE',
    'SELECT count(*) FROM pg_class',
  ],
  write: ['CREATE TABLE IF NOT EXISTS unrelated (number integer)', 'BEGIN', 'INSERT INTO unrelated VALUES (1)'],
};

/** Another session that holds something open. @returns what lets go. */
export async function hold({ url }: BenchDatabase, what: Variant['hold']): Promise<() => Promise<void>> {
  if (what === 'nothing') return async () => {};
  const client = await openClient(url, 'bench hold');
  for (const statement of HOLDS[what]) await client.query(statement);
  let released: Promise<void> | undefined;
  return () => (released ??= client.end());
}
