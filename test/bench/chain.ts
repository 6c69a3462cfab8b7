// npm run bench:chain: the cost of the hash chains. How fast a chain grows in SQL alone, on one hot account and over many, in
// full steps and in small ones, how long a sweep takes that has nothing to chain, and how long verify takes. About a minute;
// prints, writes no file.
import { takesNoOptions } from '../../src/cli/command-line.ts';
import { type Client, createPool, openClient } from '../../src/shared/database.ts';
import { createLogger } from '../../src/shared/logging.ts';
import { migrate } from '../../src/shared/migrations.ts';
import { verify } from '../../src/shared/verification.ts';
import { startChainer } from '../../src/worker/chainer.ts';
import { fillLedger, insertAccountRows } from '../support/ledger-rows.ts';
import { administer } from './database.ts';
import { interruptible } from './interrupt.ts';
import { whole } from './numbers.ts';
import { seconds } from './seconds.ts';
import { startPostgresOnly } from './servers.ts';

takesNoOptions(`usage: npm run bench:chain

Measures the cost of the hash chains on a PostgreSQL of its own: how fast a chain grows, and how long a sweep and verify
take. About a minute. Prints, writes no file.`);

const HOT_ENTRIES = 700_000;
const ACCOUNTS = 100_000;
const ENTRIES_EACH = 3;
/** As the worker makes them when much is waiting, and when entries come in by a few hundred. */
const STEP = { entries: 10_000, accounts: 5000 };
const SMALL_STEP_ENTRIES = 300;
const SMALL_STEPS_ENTRIES = 60_000;

/** Steps as the worker makes them, without its pauses. */
async function chainAll(client: Client, accounts: readonly string[]): Promise<void> {
  for (let first = 0; first < accounts.length; first += STEP.accounts) {
    let waiting = accounts.slice(first, first + STEP.accounts);
    while (waiting.length > 0) waiting = await step(client, waiting, STEP.entries);
  }
}

async function step(client: Client, accounts: readonly string[], entriesMax: number): Promise<string[]> {
  const text = 'SELECT unfinished FROM extend_ledger_chain($1, $2)';
  return (await client.query({ name: 'extend', text, values: [accounts, entriesMax] })).rows[0].unfinished;
}

/** A worker that starts and finds everything chained. @returns seconds, pauses included. */
async function sweepSeconds(url: string): Promise<number> {
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
  const url = new URL(servers.postgres.url);
  url.pathname = '/bench_chain';
  await administer(servers.postgres.url, 'CREATE DATABASE bench_chain');
  await migrate(url.href);
  const client = await openClient(url.href, 'bench');
  const many = Array.from({ length: ACCOUNTS }, (_, number) => `many-${number}`);
  for (const [accounts, last] of [
    [['hot'], HOT_ENTRIES - 1],
    [many, ENTRIES_EACH - 1],
  ] as const) {
    await fillLedger(client, accounts, 0, last, 'shop');
    await insertAccountRows(client, accounts, last);
  }
  await client.query('VACUUM ANALYZE');
  const total = HOT_ENTRIES + ACCOUNTS * ENTRIES_EACH;
  const unchained = await seconds(() => verify(client));
  const small = await seconds(async () => {
    for (let done = 0; done < SMALL_STEPS_ENTRIES; done += SMALL_STEP_ENTRIES)
      await step(client, ['hot'], SMALL_STEP_ENTRIES);
  });
  console.log(`one hot account         ${whole(SMALL_STEPS_ENTRIES / small)} entries/s, ${SMALL_STEP_ENTRIES} a step`);
  const hot = await seconds(() => chainAll(client, ['hot']));
  console.log(
    `                        ${whole((HOT_ENTRIES - SMALL_STEPS_ENTRIES) / hot)} entries/s, ${whole(STEP.entries)} a step`,
  );
  const even = await seconds(() => chainAll(client, many));
  console.log(`${whole(ACCOUNTS)} accounts of ${ENTRIES_EACH}   ${whole((ACCOUNTS * ENTRIES_EACH) / even)} entries/s`);
  console.log(`sweep, nothing to chain ${(await sweepSeconds(url.href)).toFixed(1)} s, pauses included`);
  await client.query('VACUUM ANALYZE ledger_chain');
  const found: Awaited<ReturnType<typeof verify>>[] = [];
  const chained = await seconds(async () => found.push(await verify(client)));
  if (found.some((one) => one.offendingAccounts > 0 || one.unchainedEntries > 0)) throw new Error('not verified');
  console.log(
    `verify                  ${chained.toFixed(1)} s for ${whole(total)} entries; ${unchained.toFixed(1)} s without hashes`,
  );
  const sizes = `SELECT pg_total_relation_size('ledger') AS ledger, pg_total_relation_size('ledger_chain') AS chain`;
  const [{ ledger, chain }] = (await client.query(sizes)).rows;
  console.log(
    `on disk                 ${whole(ledger / total)} bytes an entry, ${whole(chain / total)} its part of a hash`,
  );
  await client.end();
} finally {
  over();
  await servers.stop();
}
