// SIGKILL of the API, the worker and the broker while clients work, at moments drawn from a seed. Afterwards every 200
// must have its ledger entry, nothing may have happened twice, and verify must pass.
import { randomInt, randomUUID } from 'node:crypto';
import { createServer } from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type DisposableBroker, startDisposableBroker } from '../backends.ts';
import {
  type Answer,
  applyDirectly,
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  environmentOf,
  insertAccounts,
  ledgerRows,
  onCleanUp,
  pendingChanges,
  type Spawned,
  send,
  spawnProcess,
  startApiHere,
  startWorkerHere,
  until,
  verified,
} from '../harness.ts';

const CLIENTS = 8;
const ACCOUNTS = ['hot', 'warm', 'cold'];
/** Each target is killed so often, in an order drawn from the seed. */
const KILLS = { api: 6, worker: 6, broker: 2 };
const HEAL_TIMEOUT_MS = 90_000;

let server: DisposableBroker;
let broker: Broker;

beforeAll(async () => {
  server = await startDisposableBroker();
  onCleanUp(() => server.stop());
});
afterAll(cleanUp);

/** mulberry32: small, seedable. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
  const address = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

interface Accepted {
  accountId: string;
  version: number;
  amount: number;
  balance: number;
}

it('loses and doubles nothing when API, worker and broker are killed under load', async () => {
  const seed = Number(process.env.SEED ?? randomInt(2 ** 31));
  console.log(`kill test: SEED=${seed}`);
  const random = randomFrom(seed);
  const database = await createDatabase();
  broker = createBroker(server.url);
  await insertAccounts(database, ...ACCOUNTS);
  const port = String(await freePort());
  const environment = environmentOf(database, broker, { PORT: port, LOG_LEVEL: 'warn' });
  const url = `http://127.0.0.1:${port}`;
  const processes: Record<'api' | 'worker', Spawned> = {
    api: await spawnProcess('api', environment),
    worker: await spawnProcess('worker', environment),
  };

  const accepted: Accepted[] = [];
  const declined = new Set<string>();
  let working = true;

  /** Repeats under its key until there is an answer that settles it, as a careful client does. */
  async function update(accountId: string, amount: number): Promise<void> {
    const key = randomUUID();
    for (;;) {
      const answer: Answer | undefined = await send(
        url,
        'POST',
        '/v1/balance-updates',
        { accountId, amount },
        { 'idempotency-key': key },
      ).catch(() => undefined); // connection refused or reset: not known, so once more
      if (answer?.status === 200) {
        accepted.push({ accountId, amount, version: answer.body.version, balance: answer.body.balance });
        return;
      }
      if (answer?.body.code === 'insufficient_funds') {
        declined.add(key);
        return;
      }
      if (answer && answer.status !== 503) throw new Error(`unexpected answer: ${JSON.stringify(answer.body)}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
  const clients = Array.from({ length: CLIENTS }, async (_, client) => {
    const own = randomFrom(seed + client + 1);
    while (working) {
      const accountId = ACCOUNTS[Math.floor(own() ** 2 * ACCOUNTS.length)] as string;
      // Debits outweigh credits, so that balances keep meeting the limit.
      await update(accountId, own() < 0.5 ? 1 + Math.floor(own() * 50) : -1 - Math.floor(own() * 70));
    }
  });

  const kills = Object.entries(KILLS).flatMap(([target, times]) => Array<string>(times).fill(target));
  for (let left = kills.length; left > 0; left -= 1) {
    const [target] = kills.splice(Math.floor(random() * left), 1) as [keyof typeof KILLS];
    const enough = accepted.length + 1 + Math.floor(random() * 400);
    await until('traffic flows', () => accepted.length >= enough, 60_000);
    if (target === 'broker') {
      await server.kill();
      const more = accepted.length + 50;
      await until('updates are accepted without a broker', () => accepted.length >= more);
      await server.start();
    } else {
      await processes[target].kill();
      processes[target] = await spawnProcess(target, environment);
    }
  }
  working = false;
  await Promise.all(clients);

  expect(await drained(database, HEAL_TIMEOUT_MS)).toMatchObject({ offendingAccounts: 0, pendingChanges: 0 });
  const { rows } = await database.pool.query(
    'SELECT account_id AS "accountId", version, amount, balance FROM ledger ORDER BY account_id, version',
  );
  const byKey = (one: Accepted, other: Accepted) =>
    one.accountId < other.accountId ? -1 : one.accountId > other.accountId ? 1 : one.version - other.version;
  // Every accepted update has its entry, every entry its accepted update: nothing lost, nothing doubled.
  expect(accepted.sort(byKey)).toEqual(
    rows.map(({ accountId, version, amount, balance }) => ({ accountId, amount, version, balance })),
  );
  expect(rows.every((row) => row.balance >= 0)).toBe(true);
  expect(accepted.length).toBeGreaterThan(1000);
  expect(declined.size).toBeGreaterThan(0);
  await processes.api.kill();
  await processes.worker.kill();
});

async function system(): Promise<{ database: Database; url: string }> {
  const database = await createDatabase();
  broker = createBroker(server.url);
  const { url } = await startApiHere(database, broker);
  await insertAccounts(database, 'a');
  return { database, url };
}

it('accepts updates while the broker is away, and publishes them when it is back', async () => {
  const { database, url } = await system();
  await startWorkerHere(database, broker);
  await server.kill();
  for (let count = 0; count < 20; count += 1) {
    const { status } = await send(url, 'POST', '/v1/balance-updates', { accountId: 'a', amount: 1 });
    expect(status).toBe(200);
  }
  expect((await send(url, 'GET', '/readyz')).status).toBe(200);
  expect(await verified(database)).toMatchObject({ pendingChanges: 20, offendingAccounts: 0 });
  await server.start();
  expect(await drained(database, HEAL_TIMEOUT_MS)).toMatchObject({ ledgerEntries: 20, offendingAccounts: 0 });
});

it('heals when the broker lost its disk with confirmed events on it', async () => {
  const { database, url } = await system();
  for (let count = 0; count < 20; count += 1) await applyDirectly(database.pool, 'a', 1);
  await until('all are confirmed', async () => (await send(url, 'GET', '/readyz')).body.relay.confirmed >= 20);
  expect(await pendingChanges(database)).toBe(20);
  await server.restartEmpty();
  const worker = await startWorkerHere(database, broker);
  expect(await drained(database, HEAL_TIMEOUT_MS)).toMatchObject({ ledgerEntries: 20, offendingAccounts: 0 });
  expect(worker.consumer.counts.forged).toBe(0);
  expect(await ledgerRows(database)).toBe(20);
});

it('replaces a ledger queue that answers nothing after its broker was killed straight after declaring it', async () => {
  const { database, url } = await system();
  await startWorkerHere(database, broker);
  await until('the queues are declared', async () => (await send(url, 'GET', '/readyz')).body.relay.active);
  await server.kill();
  await server.start();
  await send(url, 'POST', '/v1/balance-updates', { accountId: 'a', amount: 1 });
  expect(await drained(database, HEAL_TIMEOUT_MS)).toMatchObject({ ledgerEntries: 1, offendingAccounts: 0 });
});
