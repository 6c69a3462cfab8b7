// Two API processes that know nothing of each other, behind one port: the same guarantees as one,
// and either can be replaced under load without a client noticing more than a closed connection.
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { freePort } from '../../src/local/free-port.ts';
import { problems } from '../../src/shared/problems.ts';
import { haproxy, startBalancer, startHaproxy } from '../support/balancers.ts';
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
} from '../support/harness.ts';
import { exchange } from '../support/http-client.ts';
import { needing } from '../support/needing.ts';

const RATE = 1000;
const TICK_MS = 10;
const CONNECTIONS = 64;
/** A machine that cannot do this rate gets less, and proves the same. */
const UNDER_WAY_MAX = 200;
/** Of a request; each waits for its next. */
const ATTEMPTS_MAX = 20;
/**
 * What the answer `overloaded` asks for: a slow machine gives it to a process that has just
 * started.
 */
const RETRY_AFTER_MS = 1000;
const STOP_MS_MAX = 25_000;

let database: Database;
let broker: ReturnType<typeof createBroker>;

beforeEach(async () => {
  database = await createDatabase();
  broker = createBroker();
});
afterEach(cleanUp);

const startWorker = () => spawnProcess('worker', environmentOf(database, broker));

async function startApi(port: number) {
  const { child } = await spawnProcess('api', environmentOf(database, broker, { PORT: String(port) }));
  const url = `http://127.0.0.1:${port}`;
  return { child, port, url, serves: async () => / [1-9]/.test(await updatesOf(url)) };
}

type Api = Awaited<ReturnType<typeof startApi>>;

/** The lines of the metrics that count its updates, of which there are none before the first. */
async function updatesOf(url: string): Promise<string> {
  const metrics = await (await fetch(`${url}/metrics`)).text();
  return metrics
    .split('\n')
    .filter((line) => line.startsWith('balance_operations_total{'))
    .join('\n');
}

/**
 * Requests at an even rate, whatever becomes of them. What an HTTP client sends again, this one does: a request whose kept-alive
 * connection closed as it was sent, and one that was asked to come back later.
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
          const isOurs = response.headers['content-type'] === 'application/problem+json';
          resolve(isOurs ? JSON.parse(text).code : (response.statusCode ?? 0));
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

const withHaproxy = needing('HAProxy: apt-get install haproxy', haproxy !== undefined);
const balancers = [
  { balancer: 'a balancer of connections', start: startBalancer, it },
  { balancer: 'HAProxy as docs/haproxy.cfg sets it', start: startHaproxy, it: withHaproxy.it },
];

for (const { balancer, start, it } of balancers) {
  it(`replaces API processes and worker one after the other behind ${balancer} under up to 1,000 updates a second, and no request fails`, async () => {
    const first = await freePort();
    const ports = [first, await freePort(first + 1)];
    const apis = await Promise.all(ports.map(startApi));
    const worker = await startWorker();
    const url = await start(ports);
    await createAccount(url, 'hot');
    const load = startLoad(url);
    const under = (what: string, requests: number) => {
      const from = load.counts.sent;
      return until(`load ${what}`, () => load.counts.sent >= from + requests);
    };
    await under('before', 300);
    const stop = async ({ child }: Pick<Awaited<ReturnType<typeof spawnProcess>>, 'child'>): Promise<void> => {
      const exited = once(child, 'exit');
      const askedAtMs = performance.now();
      child.kill('SIGTERM');
      expect((await exited)[0]).toBe(0);
      expect(performance.now() - askedAtMs).toBeLessThan(STOP_MS_MAX);
    };
    for (const [index, port] of ports.entries()) {
      await until('it takes its part', (apis[index] as Api).serves);
      await stop(apis[index] as Api);
      apis[index] = await startApi(port);
      await under('after a restart', 300);
    }
    await stop(worker);
    await startWorker();
    const { sent, statuses, closings } = await load.end();

    expect([...statuses]).toEqual([[200, sent]]); // a refusal other than overloaded is here by its code
    expect(sent).toBeGreaterThanOrEqual(900);
    if (start === startBalancer) expect(closings).toBeGreaterThan(0); // HAProxy keeps the client's connection
    expect((await send(url, 'GET', '/v1/accounts/hot')).body).toMatchObject({ balance: sent, version: sent });
    const active = async () => {
      const states = await Promise.all(apis.map(({ url }) => send(url, 'GET', '/readyz')));
      return states.filter(({ body }) => body.relay.active).length;
    };
    await until('one relay is active', async () => (await active()) === 1);
    expect(await drained(database)).toMatchObject({ ledgerEntries: sent + 1, offendingAccounts: 0 });
  }, 300_000);
}

withHaproxy.it(
  'HAProxy as docs/haproxy.cfg sets it keeps the inside inside, and refuses in the words of the service',
  async () => {
    const first = await freePort();
    const ports = [first, await freePort(first + 1)];
    const apis = await Promise.all(ports.map(startApi));
    const url = await startHaproxy(ports);
    for (const path of [
      '/metrics',
      '/readyz',
      '/livez',
      '/metrics#x',
      '//metrics',
      '/v1/../metrics',
      '/',
      '/elsewhere',
    ]) {
      const [answer] = await exchange(url, `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
      expect([400, 404], path).toContain(answer?.status);
    }
    for (const path of ['/docs', '/console', '/openapi.json', '/asyncapi.json']) {
      expect((await fetch(url + path)).status, path).toBe(200);
    }
    await createAccount(url, 'alice');
    for (const { child } of apis) child.kill('SIGKILL');
    // A request that is in flight just then is not answered.
    const reading = () => send(url, 'GET', '/v1/accounts/alice').catch(() => undefined);
    await until('both are out', async () => (await reading())?.status === 503);
    const { status, headers, body } = await send(url, 'POST', '/v1/balance-updates', { accountId: 'alice', amount: 1 });
    expect([status, headers.get('content-type'), headers.get('retry-after')]).toEqual([
      ...[503, 'application/problem+json', '1'],
    ]);
    expect(body).toEqual({
      type: 'urn:highload-balance:problem:overloaded',
      ...{ title: problems.overloaded.title, status: 503, code: 'overloaded' },
    });
  },
);
