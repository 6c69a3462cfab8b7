// The console tells the truth while something is down: the broker, the worker, the database, a
// process, a key.
import { once } from 'node:events';
import { connect } from 'node:net';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { revokeKey } from '../../src/cli/api-keys.ts';
import {
  type DisposableBroker,
  type DisposablePostgres,
  startDisposableBroker,
  startDisposablePostgres,
} from '../support/backends.ts';
import { hasBrowser, openBrowser } from '../support/browser.ts';
import { pixelsOf } from '../support/console-page.ts';
import { countOf, type Watcher, watch } from '../support/console-watcher.ts';
import {
  type Broker,
  cleanUp,
  createAccount,
  createApiKey,
  createBroker,
  createDatabase,
  type Database,
  environmentOf,
  onCleanUp,
  send,
  sendPatiently,
  spawnProcess,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';

const UPDATES = '/v1/balance-updates';

let database: Database;
let broker: Broker;

beforeEach(async () => {
  database = await createDatabase();
  broker = createBroker();
});
afterEach(cleanUp);

const credit = (url: string) => send(url, 'POST', UPDATES, { accountId: 'alice', amount: 1 });
const now = (watcher: Watcher) => watcher.live.at(-1);

it('says that no worker takes events, how many wait for one, and that it has come', async () => {
  const { url } = await startApiHere(database, broker);
  await createAccount(url, 'alice');
  const watcher = await watch(url, {});
  for (let update = 0; update < 5; update += 1) await credit(url);
  await until('the ledger lacks them', () => now(watcher)?.figures?.pending === 6); // and the opening
  await until('they wait', () => (now(watcher)?.ledgerQueue?.waiting ?? 0) > 0);
  expect(now(watcher)).toMatchObject({ broker: 'connected', ledgerQueue: { consumers: 0 } });
  expect(now(watcher)?.ledgerQueue?.waiting).toBeLessThanOrEqual(6); // messages, each with some of them
  await startWorkerHere(database, broker);
  await until('a worker has taken them', () => {
    const { ledgerQueue, figures } = now(watcher) ?? {};
    return ledgerQueue?.consumers === 1 && ledgerQueue.waiting === 0 && figures?.pending === 0;
  });
});

it('continues while the database hangs, and says of each figure whether it is known', async () => {
  const { url } = await startApiHere(database, broker, { RELAY: 'off' });
  await createAccount(url, 'alice');
  const watcher = await watch(url, {});
  const isKnown = () => now(watcher)?.database === 'ok' && now(watcher)?.figures?.pending === 1; // the opening
  await until('all is known', isKnown);
  const client = await database.pool.connect();
  await client.query('BEGIN; LOCK TABLE relay_progress, schemaversion');
  await until('it is reported', () => now(watcher)?.database === 'does not answer');
  const told = watcher.live.length;
  await until('it continues', () => watcher.live.length > told + 2);
  expect(now(watcher)).toMatchObject({ problem: null, figures: { pending: null, lagMs: null, accepted: 0 } });
  await client.query('ROLLBACK');
  client.release();
  await until('all is known again', isKnown);
});

it('ends the stream of a key that is revoked, and of no other', async () => {
  const { url } = await startApiHere(database, broker, { AUTH: 'required', RELAY: 'off' });
  const [staying, leaving] = [await createApiKey(database, 'one'), await createApiKey(database, 'other')];
  const watchers = [await watch(url, staying.headers), await watch(url, leaving.headers)] as const;
  await until('both have readings', () => watchers.every(({ live }) => live.length > 1));
  const client = await database.pool.connect();
  await revokeKey(client, leaving.id);
  client.release();
  await watchers[1].ended;
  const told = watchers[0].live.length;
  await until('the other gets more', () => watchers[0].live.length > told + 1);
  expect((await send(url, 'GET', '/console/stream', undefined, leaving.headers)).body.code).toBe('unauthorized');
});

it('reports what all processes behind the port do together, also when one of them is replaced', async () => {
  const cluster = await spawnProcess('api', environmentOf(database, broker, { API_PROCESSES: '2' }));
  const url = cluster.url();
  await createAccount(url, 'alice');
  const watcher = await watch(url, {});
  await until('its first figures are there', () => now(watcher)?.figures?.accepted === 0);
  const updates = Array.from({ length: 200 }, () => ({ accountId: 'alice', amount: 1 }));
  const one = () => sendPatiently(url, 'POST', `${UPDATES}/bulk`, { updates }, { connection: 'close' });
  const answers = await Promise.all(Array.from({ length: 20 }, one));
  // On a busy machine some of them have waited for too long, and are refused one by one.
  const applied = answers.flatMap(({ body }) => body.results).filter(({ status }) => status === 200).length;
  expect(applied).toBeGreaterThan(400);
  const accepted = () => countOf(watcher, 'accepted');
  await until('all are counted', () => accepted() > 0.975 * applied);
  expect(Math.abs(accepted() - applied)).toBeLessThan(0.05 * applied); // its clock has milliseconds
  expect(now(watcher)).toMatchObject({ processes: 2, problem: null });
  const instance = now(watcher)?.instance ?? '';
  const other = cluster.lines('api started').find(({ pid }) => !instance.endsWith(` ${pid}`));
  process.kill(other?.pid as number, 'SIGKILL');
  await until('it says why there are no figures', () => watcher.live.some(({ problem }) => problem !== null));
  await until('there are figures again', () => now(watcher)?.figures?.accepted === 0);
});

it('continues a stream after whose request rubbish comes, and drops it at its end', async () => {
  const { url, stop } = await startApiHere(database, broker, { RELAY: 'off' });
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  onCleanUp(async () => socket.destroy());
  let text = '';
  socket.on('data', (data) => (text += data));
  socket.on('error', () => {});
  socket.write('GET /console/stream HTTP/1.1\r\nHost: localhost\r\n\r\n');
  await until('the stream is there', () => text.includes('event: live'));
  socket.write('rubbish\r\n\r\n');
  await until('it continues', () => text.split('event: live').length > 3);
  expect((await send(url, 'GET', '/livez')).status).toBe(200);
  const closed = once(socket, 'close');
  await stop();
  await closed;
});

it('lets go of a watcher that does not read, and of no other', async () => {
  const { url } = await startApiHere(database, broker);
  await createAccount(url, 'alice');
  const open = async () => {
    const { hostname, port } = new URL(url);
    const socket = connect(Number(port), hostname);
    onCleanUp(async () => socket.destroy());
    socket.on('error', () => {});
    socket.write('GET /console/stream HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await once(socket, 'readable');
    return socket;
  };
  (await open()).pause(); // and reads no more
  const others = await Promise.all(Array.from({ length: 19 }, open));
  for (const other of others) other.resume();
  const admits = async () => {
    const response = await fetch(`${url}/console/stream`);
    await response.body?.cancel();
    return response.status === 200;
  };
  expect(await admits()).toBe(false);
  // Much to send: the buffers of two sockets hold some megabytes.
  const updates = Array.from({ length: 100 }, () => ({ accountId: 'alice', amount: 1, reference: 'x'.repeat(255) }));
  await until(
    'there is room for another',
    async () => {
      await sendPatiently(url, 'POST', `${UPDATES}/bulk`, { updates });
      return admits();
    },
    55_000, // after 60 s the server itself lets go of a socket on which nothing moves
  );
  expect(others.filter(({ destroyed, readableEnded }) => destroyed || readableEnded)).toEqual([]);
});

describe('with servers of its own', () => {
  let ownBroker: DisposableBroker;
  let ownPostgres: DisposablePostgres;
  beforeAll(async () => {
    [ownBroker, ownPostgres] = await Promise.all([startDisposableBroker(), startDisposablePostgres()]);
    return async () => {
      await Promise.all([ownBroker.stop(), ownPostgres.stop()]);
    };
  });

  it('says that the broker is down, that updates wait for it, and that it is back', async () => {
    broker = createBroker(ownBroker.url);
    const { url } = await startApiHere(database, broker);
    await startWorkerHere(database, broker);
    await createAccount(url, 'alice', 5);
    const watcher = await watch(url, {});
    await until(
      'all is well',
      () => now(watcher)?.ledgerQueue?.consumers === 1 && now(watcher)?.figures?.pending === 0,
    );
    const browser = hasBrowser ? await openBrowser() : undefined;
    onCleanUp(async () => browser?.close());
    const page = await browser?.newPage();
    await page?.goto(`${url}/console`);
    await page?.locator('#worker', { hasText: 'connected' }).waitFor();
    await page?.locator('#broker', { hasText: /^connected$/ }).waitFor();

    await ownBroker.kill();
    await until('it is reported', () => now(watcher)?.broker === 'disconnected');
    for (let update = 0; update < 3; update += 1) expect((await credit(url)).status).toBe(200);
    await until('they wait', () => now(watcher)?.figures?.pending === 3 && (now(watcher)?.figures?.lagMs ?? 0) > 2000);
    expect(now(watcher)).toMatchObject({ database: 'ok', ledgerQueue: null, figures: { link: 'disconnected' } });
    await page?.locator('#broker', { hasText: 'disconnected' }).waitFor();
    await page?.locator('#worker', { hasText: 'not known' }).waitFor();
    await page?.locator('#events-note', { hasText: 'RabbitMQ is down' }).waitFor();
    await page?.locator('#lag-note', { hasText: /^3 changes not in it yet, longer than usual$/ }).waitFor();
    expect(await page?.locator('#ledger-tile').getAttribute('class')).toBe(page && 'tile warn');
    expect(await page?.locator('#stale').isVisible()).toBe(page && false);

    await ownBroker.start();
    await until(
      'all is well again',
      () => now(watcher)?.ledgerQueue?.consumers === 1 && now(watcher)?.figures?.pending === 0,
      120_000,
    );
    await page?.locator('#broker', { hasText: /^connected$/ }).waitFor();
    await page?.locator('#ledger-tile.good').waitFor();
    // What waited may have been published before the console had its new queue: what comes from now
    // on is shown.
    await until('it shows events again', async () => {
      await credit(url);
      return page === undefined || (await page.locator('#events tr', { hasText: 'alice' }).count()) > 0;
    });
  });

  it('says that the database is down, and that what only it knows is not known', async () => {
    database = await createDatabase({ serverUrl: ownPostgres.url });
    const { url } = await startApiHere(database, broker, { RELAY: 'off' });
    await createAccount(url, 'alice', 5);
    const watcher = await watch(url, {});
    await until('all is well', () => now(watcher)?.database === 'ok' && now(watcher)?.figures?.pending === 2);
    const browser = hasBrowser ? await openBrowser() : undefined;
    onCleanUp(async () => browser?.close());
    const page = await browser?.newPage();
    await page?.goto(`${url}/console`);
    await page?.locator('#database-tile.good').waitFor();
    await ownPostgres.kill();
    await until('it is reported', () => /^unavailable: ./.test(now(watcher)?.database ?? ''));
    await until('the rest is not known', () => now(watcher)?.figures?.pending === null);
    await until('a refusal is reported', async () => {
      expect((await credit(url)).status).toBe(503);
      return (now(watcher)?.figures?.refused ?? 0) > 0;
    });
    if (page) await until('a line of what is refused', async () => (await pixelsOf(page, 'rate-plot', 'bad')) > 0);
    await page?.locator('#database-tile.bad').waitFor();
    expect(await page?.locator('#lag').innerText()).toBe(page && 'not known');
    await ownPostgres.start();
    await until('all is well again', () => now(watcher)?.database === 'ok' && now(watcher)?.figures?.pending === 2);
  });
});
