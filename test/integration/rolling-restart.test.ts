// Two API processes that know nothing of each other, behind one port: the same guarantees as one, and either can be
// replaced under load without a client noticing more than a closed connection.
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  type Database,
  drained,
  environmentOf,
  onCleanUp,
  send,
  spawnProcess,
  until,
} from '../harness.ts';

const RATE = 1000;
const TICK_MS = 10;
const CONNECTIONS = 64;
/** A machine that cannot do this rate gets less, and proves the same. */
const UNDER_WAY_MAX = 200;
/** Of a request; each waits for its next. */
const ATTEMPTS_MAX = 20;
/** What the answer `overloaded` asks for: a slow machine gives it to a process that has just started. */
const RETRY_AFTER_MS = 1000;
const STOP_MS_MAX = 25_000;
const ASK_EVERY_MS = 200;

let database: Database;
let broker: ReturnType<typeof createBroker>;

beforeAll(async () => {
  database = await createDatabase();
  broker = createBroker();
});
afterAll(cleanUp);

async function startProcess(main: 'api' | 'worker') {
  const spawned = await spawnProcess(main, environmentOf(database, broker, { LOG_LEVEL: 'info' }));
  if (main === 'api') await until('it listens', () => /"port":\d+/.test(spawned.output()));
  return { ...spawned, port: Number(/"port":(\d+)/.exec(spawned.output())?.[1]) };
}
type Process = Awaited<ReturnType<typeof startProcess>>;

/** What a balancer of TCP connections does: it asks each process whether it is ready, and each connection goes to the next that is. */
async function startBalancer(processes: () => number[]): Promise<{ url: string; balanced: Map<number, number> }> {
  const sockets = new Set<Socket>();
  const balanced = new Map<number, number>();
  let turn = 0;
  const notReady = new Set<number>();
  const asking = setInterval(() => {
    for (const port of processes()) {
      send(`http://127.0.0.1:${port}`, 'GET', '/readyz', undefined, { connection: 'close' }).then(
        ({ status }) => (status === 200 ? notReady.delete(port) : notReady.add(port)),
        () => notReady.add(port),
      );
    }
  }, ASK_EVERY_MS);
  const ports = () => processes().filter((port) => !notReady.has(port));
  const keep = (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket)).on('error', () => {});
  };
  async function connected(): Promise<Socket | undefined> {
    const from = ++turn;
    const all = ports();
    for (let attempt = 0; attempt < all.length; attempt += 1) {
      const port = all[(from + attempt) % all.length] as number;
      const far = connect({ port, host: '127.0.0.1', noDelay: true });
      keep(far);
      const outcome = await Promise.race([
        once(far, 'connect').then(() => true),
        once(far, 'close').then(() => false),
      ]).catch(() => false);
      if (!outcome) continue;
      balanced.set(port, (balanced.get(port) ?? 0) + 1);
      return far;
    }
    return undefined;
  }
  const server = createServer({ pauseOnConnect: true, noDelay: true, allowHalfOpen: true }, async (near) => {
    keep(near);
    const far = await connected();
    if (!far) return near.destroy();
    near.once('close', () => far.destroy());
    far.once('close', () => near.destroySoon());
    near.pipe(far);
    far.pipe(near);
    near.resume();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onCleanUp(async () => {
    clearInterval(asking);
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, balanced };
}

/**
 * Requests at an even rate, whatever becomes of them. What an HTTP client sends again, this one does: a request whose kept-alive
 * connection closed as it was sent, and one that was told to come back later.
 */
function startLoad(url: string) {
  const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS });
  onCleanUp(async () => agent.destroy());
  const counts = { sent: 0, repeated: 0, closings: 0, statuses: new Map<number | string, number>(), longestMs: 0 };
  const body = JSON.stringify({ accountId: 'hot', amount: 1 });
  const once1 = (key: string) =>
    new Promise<number | string>((resolve) => {
      const headers = { 'content-type': 'application/json', 'content-length': body.length, 'idempotency-key': key };
      const sent = request(`${url}/v1/balance-updates`, { method: 'POST', agent, headers, timeout: 20_000 });
      sent.on('timeout', () => sent.destroy(new Error('no answer in time')));
      sent.on('error', (error: NodeJS.ErrnoException) => {
        const isClosed = sent.reusedSocket && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
        resolve(isClosed ? 'closed' : (error.code ?? error.message));
      });
      sent.on('response', (response) => {
        if (response.headers.connection === 'close') counts.closings += 1;
        let text = '';
        response.on('data', (bytes) => (text += bytes));
        response.on('close', () => {
          if (!response.complete) return resolve('half');
          resolve(response.statusCode === 200 ? 200 : JSON.parse(text).code);
        });
      });
      sent.end(body);
    });
  const underWay = new Set<Promise<void>>();
  async function one(key: string): Promise<void> {
    const startedAtMs = performance.now();
    let outcome = await once1(key);
    for (let attempt = 1; attempt < ATTEMPTS_MAX && (outcome === 'closed' || outcome === 'overloaded'); attempt += 1) {
      counts.repeated += 1;
      if (outcome === 'overloaded') await delay(RETRY_AFTER_MS);
      outcome = await once1(key);
    }
    counts.statuses.set(outcome, (counts.statuses.get(outcome) ?? 0) + 1);
    counts.longestMs = Math.max(counts.longestMs, performance.now() - startedAtMs);
  }
  const startedAtMs = performance.now();
  const ticking = setInterval(() => {
    const due = ((performance.now() - startedAtMs) * RATE) / 1000;
    for (; counts.sent < due && underWay.size < UNDER_WAY_MAX; counts.sent += 1) {
      const sending = one(`k${counts.sent}`).finally(() => underWay.delete(sending));
      underWay.add(sending);
    }
  }, TICK_MS);
  onCleanUp(async () => clearInterval(ticking));
  return {
    counts,
    async end() {
      clearInterval(ticking);
      await Promise.all(underWay);
      return counts;
    },
  };
}

it('replaces API processes and worker one after the other under up to 1,000 updates a second, and no request fails', {
  timeout: 300_000,
}, async () => {
  const apis = [await startProcess('api'), await startProcess('api')];
  const worker = await startProcess('worker');
  const { url, balanced } = await startBalancer(() => apis.map(({ port }) => port));
  await createAccount(url, 'hot');
  const load = startLoad(url);
  const under = (what: string, requests: number) => {
    const from = load.counts.sent;
    return until(`load ${what}`, () => load.counts.sent >= from + requests);
  };
  await under('before', 300);
  const old: Process[] = [...apis, worker];
  const replace = async (one: Process): Promise<void> => {
    const exited = once(one.child, 'exit');
    const askedAtMs = performance.now();
    one.child.kill('SIGTERM');
    expect((await exited)[0]).toBe(0);
    expect(performance.now() - askedAtMs).toBeLessThan(STOP_MS_MAX);
  };
  for (let index = 0; index < 2; index += 1) {
    await replace(apis[index] as Process);
    apis[index] = await startProcess('api');
    await under('after a restart', 300);
  }
  await replace(worker);
  await startProcess('worker');
  const { sent, statuses, closings } = await load.end();

  expect([...statuses]).toEqual([[200, sent]]); // a refusal other than overloaded stands here by its code
  expect(sent).toBeGreaterThanOrEqual(900);
  expect(closings).toBeGreaterThan(0);
  // Connections stay where they are: the one that came last may have none yet.
  for (const { port } of [...old.slice(0, 2), apis[0] as Process]) expect(balanced.get(port)).toBeGreaterThan(0);
  expect((await send(url, 'GET', '/v1/accounts/hot')).body).toMatchObject({ balance: sent, version: sent });
  const active = async () => {
    const states = await Promise.all(apis.map(({ port }) => send(`http://127.0.0.1:${port}`, 'GET', '/readyz')));
    return states.filter(({ body }) => body.relay.active).length;
  };
  await until('one relay is active', async () => (await active()) === 1);
  expect(await drained(database)).toMatchObject({ ledgerEntries: sent, offendingAccounts: 0 });
});
