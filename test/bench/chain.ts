// npm run bench:chain: what the hash chains cost. How fast a chain grows in SQL alone, on one hot account and over many, what a
// worker finds that has nothing to chain, and how long verify takes. About a minute; prints, writes no file.

import { createPool } from '../../src/shared/database.ts';
import { createLogger } from '../../src/shared/logging.ts';
import { verify } from '../../src/shared/verification.ts';
import { startChainer } from '../../src/worker/chainer.ts';
import { type BenchDatabase, createDatabase, createTemplate } from './database.ts';
import { interruptible } from './interrupt.ts';
import { whole } from './numbers.ts';
import { startPostgresOnly } from './servers.ts';

const HOT_ENTRIES = 700_000;
const ACCOUNTS = 100_000;
const ENTRIES_EACH = 3;
const STEP = { entries: 10_000, accounts: 5000 };

const FILL = `
  WITH entries AS (
    INSERT INTO ledger (account_id, version, amount, balance, reference, actor, created_at)
    SELECT account_id, version, 1, version, 'order ' || version, 'shop', '2026-11-23T20:00:00Z'
    FROM unnest($1::text[]) AS account_id CROSS JOIN generate_series(1, $2::integer) AS version
    ORDER BY version, account_id -- as if they had taken turns
  )
  INSERT INTO account (account_id, balance, version, created_at, updated_at)
  SELECT account_id, $2, $2, now(), now() FROM unnest($1::text[]) AS account_id`;

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const startedAtMs = performance.now();
  await work();
  return (performance.now() - startedAtMs) / 1000;
}

/** Steps as the worker makes them, without its pauses. */
async function chainAll({ client }: BenchDatabase, accounts: readonly string[]): Promise<void> {
  for (let first = 0; first < accounts.length; first += STEP.accounts) {
    let waiting = accounts.slice(first, first + STEP.accounts);
    while (waiting.length > 0) {
      const { rows } = await client.query('SELECT unfinished FROM extend_ledger_chain($1, $2)', [
        waiting,
        STEP.entries,
      ]);
      waiting = rows[0].unfinished;
    }
  }
}

/** A worker that starts and finds everything chained. @returns seconds, pauses included. */
async function sweepSeconds({ url }: BenchDatabase): Promise<number> {
  const pool = createPool(url, 'bench', 1, 30_000);
  const chainer = startChainer({ pool, log: createLogger('bench', 'silent') });
  const took = await seconds(async () => {
    while (chainer.counts.sweeps === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  });
  await chainer.stop();
  await pool.end();
  return took;
}

const servers = await startPostgresOnly();
const over = interruptible(() => servers.reaper.close());
try {
  await createTemplate(servers.postgres.url);
  const database = await createDatabase(servers.postgres.url, { extraAccounts: 0, ledgerRows: 0 });
  const { client } = database;
  await client.query('TRUNCATE account');
  const many = Array.from({ length: ACCOUNTS }, (_, number) => `many-${number}`);
  await client.query(FILL, [['hot'], HOT_ENTRIES]);
  await client.query(FILL, [many, ENTRIES_EACH]);
  await client.query('VACUUM ANALYZE');
  const total = HOT_ENTRIES + ACCOUNTS * ENTRIES_EACH;
  const unchained = await seconds(() => verify(client));
  const hot = await seconds(() => chainAll(database, ['hot']));
  console.log(`one hot account         ${whole(HOT_ENTRIES / hot)} entries/s`);
  const even = await seconds(() => chainAll(database, many));
  console.log(`${whole(ACCOUNTS)} accounts of ${ENTRIES_EACH}   ${whole((ACCOUNTS * ENTRIES_EACH) / even)} entries/s`);
  console.log(`sweep, nothing to chain ${(await sweepSeconds(database)).toFixed(1)} s, pauses included`);
  await client.query('VACUUM ANALYZE ledger_chain');
  const found: Awaited<ReturnType<typeof verify>>[] = [];
  const chained = await seconds(async () => found.push(await verify(client)));
  if (found.some((one) => one.offendingAccounts > 0 || one.unchainedEntries > 0)) throw new Error('not verified');
  console.log(
    `verify                  ${chained.toFixed(1)} s for ${whole(total)} entries; ${unchained.toFixed(1)} s without hashes`,
  );
  const sizes = `SELECT pg_total_relation_size('ledger') AS ledger, pg_total_relation_size('ledger_chain') AS chain`;
  const [{ ledger, chain }] = (await client.query(sizes)).rows;
  console.log(`on disk                 ${whole(ledger / total)} bytes an entry, ${whole(chain / total)} its hash`);
  await database.drop();
} finally {
  over();
  await servers.stop();
}
