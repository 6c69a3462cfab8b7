// A queue that hangs is put aside by the relay and resumed by the command, under traffic all the
// time: its consumer gets every event of every account in the order of versions.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createClient } from '../../src/client/client.ts';
import { type Handled, subscribe as subscribeClient } from '../../src/client/events.ts';
import { type DisposableBroker, startDisposableBroker } from '../support/backends.ts';
import { runCommand } from '../support/commands.ts';
import {
  addressesOf,
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  insertAccounts,
  ONLY_PROGRESS,
  onCleanUp,
  send,
  startApiHere,
  startWorkerHere,
  subscribe,
  until,
} from '../support/harness.ts';

/** A node takes up to 10 s to start, and its management a little longer. */
const LONG_MS = 300_000;
const QUEUE = 'billing';
const ACCOUNTS = Array.from({ length: 10 }, (_, index) => `account-${index}`);

let server: DisposableBroker;
let broker: Broker;
let database: Database;

beforeAll(async () => {
  server = await startDisposableBroker({ management: true });
  broker = createBroker(server.url);
  database = await createDatabase();
}, LONG_MS);
afterAll(async () => {
  await cleanUp();
  await server.stop();
});

/** The process in which the leader of the quorum queue runs. */
async function setSuspended(isSuspended: boolean): Promise<void> {
  await server.control('eval', `sys:${isSuspended ? 'suspend' : 'resume'}(whereis('%2F_${QUEUE}')).`);
}

const run = (...args: string[]) =>
  runCommand(['subscribers', ...args], {
    ...addressesOf(database, broker),
    AMQP_MANAGEMENT_URL: server.managementUrl as string,
  });
const listed = async () => JSON.parse((await run('--json')).out);

it('a queue that was put aside is resumed under traffic, without a gap', { timeout: LONG_MS }, async () => {
  const { url } = await startApiHere(database, broker, {
    AMQP_MANAGEMENT_URL: server.managementUrl as string,
    SUBSCRIBER_ASIDE_MS: '5000',
  });
  await startWorkerHere(database, broker);
  const neighbour = await subscribe(broker);
  const seen = new Map<string, Handled>();
  const faults: string[] = [];
  const subscription = subscribeClient({
    ...{ url: broker.url, namespace: broker.namespace, queue: QUEUE, gapTimeoutMs: 3000 },
    client: createClient({ url }),
    lastHandled: (accountId) => seen.get(accountId),
    handle({ data: { accountId, version } }, { handled }) {
      const last = seen.get(accountId)?.version ?? -1;
      if (version !== last + 1) faults.push(`${accountId}:${version} after ${last}`);
      seen.set(accountId, handled);
    },
    onGap({ accountId, firstMissing }) {
      faults.push(`${accountId}:${firstMissing} is missing`);
      return 'wait';
    },
    onRewind: ({ accountId }) => void faults.push(`${accountId} was cut`),
    onProblem: () => {}, // its queue hangs
  });
  onCleanUp(() => subscription.stop());
  await until('it consumes', () => subscription.isConsuming);
  await insertAccounts(database, ...ACCOUNTS); // their openings are events, too
  expect(await listed()).toMatchObject({
    isComplete: true,
    queues: expect.arrayContaining([expect.objectContaining({ name: QUEUE, routingKeys: ['#'], putAside: null })]),
  });

  let isRunning = true;
  let sent = 0;
  const traffic = Promise.all(
    [0, 1].map(async (client) => {
      for (let turn = client; isRunning; turn += 2) {
        const body = { accountId: ACCOUNTS[turn % ACCOUNTS.length], amount: 1 };
        if ((await send(url, 'POST', '/v1/balance-updates', body)).status === 200) sent += 1;
      }
    }),
  );
  onCleanUp(async () => {
    isRunning = false;
    await traffic;
  });
  await until('there is traffic', () => sent > 100);
  await setSuspended(true);
  const subscribers = async () => (await send(url, 'GET', '/readyz')).body.relay.subscribers;
  await until('it is put aside', async () => (await subscribers()).putAside > 0, 120_000);
  const { queues } = await listed();
  expect(queues.find(({ name }: { name: string }) => name === QUEUE)).toMatchObject({
    ...{ routingKeys: [], exists: true, command: `highload-balance subscribers resume ${QUEUE}` },
    putAside: { routingKeys: ['#'] },
  });
  const tooEarly = await run('resume', QUEUE);
  expect(tooEarly).toMatchObject({ code: 1, err: expect.stringMatching(/still accepts nothing.*still noted/) });

  const before = sent;
  await setSuspended(false);
  await until('it went on without it', () => sent > before + 100);
  const { code, err, out } = await run('resume', QUEUE, '--json');
  expect({ code, err, ...JSON.parse(out || '{}') }).toMatchObject({
    code: 0,
    err: expect.stringMatching(ONLY_PROGRESS),
    routingKeys: ['#'],
    complete: true,
  });
  const after = sent;
  await until('the present continues', () => sent > after + 100);
  isRunning = false;
  await traffic;
  await drained(database);
  const { rows } = await database.pool.query('SELECT account_id, version FROM account ORDER BY account_id');
  const truth = JSON.stringify(rows.map(({ account_id, version }) => [account_id, version]));
  const copy = () => JSON.stringify([...seen].map(([id, { version }]) => [id, version]).sort());
  await until('its copy is whole', () => copy() === truth).catch(() => {});
  expect(copy()).toBe(truth);
  expect(faults).toEqual([]);
  const all = rows.reduce((total, { version }) => total + version, 0);
  const had = () =>
    new Set(neighbour.filter(({ body }) => body.data.version > 0).map(({ messageId }) => messageId)).size;
  await until('its neighbour has all', () => had() === all);
  expect((await listed()).queues.find(({ name }: { name: string }) => name === QUEUE)).toMatchObject({
    ...{ routingKeys: ['#'], putAside: null, command: null },
  });
});
