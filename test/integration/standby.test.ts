// A hot standby: the service does nothing on it and says why, until it is promoted; commands that
// only read say what they read.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openClient, openPool, type Pool } from '../../src/shared/database.ts';
import { migrate } from '../../src/shared/migrations.ts';
import { UnfitServer } from '../../src/shared/session-settings.ts';
import { startProxy, type TcpProxy } from '../chaos/proxy.ts';
import { runCommand } from '../support/commands.ts';
import {
  addressesOf,
  applyDirectly,
  type Broker,
  cleanUp,
  createBroker,
  insertAccounts,
  onCleanUp,
  send,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';
import { type Pair, startPair } from '../support/standby.ts';

let pair: Pair;
let pool: Pool;
let broker: Broker;
let proxy: TcpProxy;
const target = { port: 0 };
/** Leads to the primary first. */
let way: string;

beforeAll(async () => {
  pair = await startPair(migrate);
  pool = openPool(pair.primary.url, 'test', 2, {});
  onCleanUp(() => pool.end());
  await insertAccounts({ url: pair.primary.url, pool }, 'a');
  await applyDirectly(pool, 'a', 5);
  await pair.caughtUp();
  broker = createBroker();
  target.port = pair.primary.port;
  proxy = await startProxy(target);
  onCleanUp(() => proxy.close());
  const url = new URL(pair.primary.url);
  url.port = String(proxy.port);
  way = url.href;
});
afterAll(cleanUp);

const run = (...args: string[]) => runCommand(args, addressesOf(pair.standby, broker));

it('is read by commands that only read, which say so', async () => {
  const said = expect.stringMatching(/^The database is a standby: .* Its last replayed transaction was committed at 2/);
  expect(await run('verify')).toEqual({
    code: 0,
    out: expect.stringContaining('\nverified, as far as this standby has replayed\n'),
    err: said,
  });
  const { out } = await run('verify', '--json');
  expect(JSON.parse(out)).toMatchObject({ verified: true, standby: { replayedUntil: expect.stringMatching(/^2/) } });
  expect(await run('heads')).toEqual({ code: 0, out: '', err: said });
  const since = await run('verify', '--since', '/dev/null'); // no heads: everything from its opening
  expect(since).toMatchObject({
    code: 0,
    out: expect.stringContaining('\nverified after the heads, as far as this standby has replayed. Not proven: '),
  });
});

it('is refused by commands that write, and by a replay that must miss nothing', async () => {
  const key = await run('keys', 'create', 'client', '--scopes', 'read');
  expect(key).toMatchObject({
    code: 1,
    err: expect.stringContaining('during recovery. Name the primary in DATABASE_URL'),
  });
  const handOver = await run('replay', '--queue', 'a-queue', '--all', '--hand-over');
  expect(handOver).toMatchObject({ code: 1, err: expect.stringContaining('--hand-over needs the primary') });
  expect(await run('migrate')).toMatchObject({ code: 1, err: expect.stringContaining('it is a standby') });
});

it('is refused by every connection but those that only read', async () => {
  await expect(openClient(pair.standby.url, 'test')).rejects.toThrow(UnfitServer);
  const wrong = openPool(pair.standby.url, 'test', 1, {});
  onCleanUp(() => wrong.end());
  await expect(wrong.query('SELECT')).rejects.toThrow(/it is a standby, in recovery/);
});

it('serves nothing behind a proxy that leads to it, and all once it is promoted', async () => {
  const { url } = await startApiHere({ url: way, pool }, broker, { LANES: '2' });
  const worker = await startWorkerHere({ url: way, pool }, broker, { HEALTH_PORT: '0', HEALTH_HOST: '127.0.0.1' });
  const read = (path = '') => send(url, 'GET', `/v1/accounts/a${path}`);
  const credit = () => send(url, 'POST', '/v1/balance-updates', { accountId: 'a', amount: 1 });
  const statuses = async () => [(await read()).status, (await read('/verification')).status, (await credit()).status];
  const ready = () => send(url, 'GET', '/readyz');
  const workerIsReady = async () => (await fetch(`http://127.0.0.1:${worker.healthPort}/readyz`)).status === 200;
  await until('it is ready', async () => (await ready()).status === 200 && (await workerIsReady()));
  await until('its relay is active', async () => (await ready()).body.relay.active);
  expect(await statuses()).toEqual([200, 200, 200]);
  await pair.caughtUp();

  target.port = pair.standby.port;
  for (const connection of proxy.connections()) connection.cut();
  const isStandby = 'it is a standby, in recovery: name the primary';
  await until('it says so', async () => {
    const { status, body } = await ready();
    const { reasons = [], relay } = body;
    const isSaid = [`PostgreSQL: cannot be used: ${isStandby}`, `2 of 2 lanes: no connection: ${isStandby}`].every(
      (reason) => reasons.includes(reason),
    );
    return status === 503 && isSaid && !relay.active;
  });
  for (let round = 0; round < 5; round += 1) expect(await statuses()).toEqual([503, 503, 503]);
  expect(await workerIsReady()).toBe(false);

  await pair.promote();
  await until('it is ready again', async () => (await ready()).status === 200 && (await workerIsReady()));
  await until('its relay is active again', async () => (await ready()).body.relay.active);
  expect((await credit()).body).toMatchObject({ balance: 7, version: 3 });
});
