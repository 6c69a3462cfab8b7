// Traces: one across the outbox, and nothing of them where they are off or the collector is down.
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type CollectedSpan, startCollector } from '../support/collector.ts';
import {
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  environmentOf,
  eventIds,
  insertAccounts,
  onCleanUp,
  send,
  spawnProcess,
  startApiHere,
  subscribe,
  until,
} from '../support/harness.ts';

const TRACE_ID = '0af7651916cd43dd8448eb211c80319c';
const CLIENT_SPAN_ID = 'b7ad6b7169203331';
const TRACEPARENT = `00-${TRACE_ID}-${CLIENT_SPAN_ID}-01`;

let collector: Awaited<ReturnType<typeof startCollector>>;
let database: Database;
let broker: Broker;
let traced: string;
let events: Awaited<ReturnType<typeof subscribe>>;

beforeAll(async () => {
  collector = await startCollector();
  database = await createDatabase();
  broker = createBroker();
  await insertAccounts(database, 'alice', 'bob', 'carol', 'dave');
  events = await subscribe(broker);
  const tracing = { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url };
  // Each in a process of its own: nothing but the outbox and the broker connects them.
  await spawnProcess('worker', environmentOf(database, broker, tracing));
  await spawnProcess('api', environmentOf(database, broker, { ...tracing, RELAY: 'only' }));
  ({ url: traced } = await startApiHere(database, broker, { ...tracing, RELAY: 'off' }));
});
afterAll(cleanUp);

/**
 * Of one trace, when so many spans of those names are there: each process sends its own, one batch
 * after the other.
 */
async function traceWith(counts: Record<string, number>, isIn: (span: CollectedSpan) => boolean) {
  for (const [name, count] of Object.entries(counts)) {
    const named = () => collector.spans.filter((span) => isIn(span) && span.name.startsWith(name));
    await until(`${count} spans ${name} arrived`, () => named().length >= count);
  }
  return collector.spans.filter(isIn);
}

const one = (spans: CollectedSpan[], name: string) => {
  const found = spans.filter((span) => span.name.startsWith(name));
  expect(found.map((span) => span.name)).toHaveLength(1);
  return found[0] as CollectedSpan;
};

it('shows an update from the request to the ledger entry as one trace', async () => {
  const update = { accountId: 'alice', amount: 5 };
  const { status } = await send(traced, 'POST', '/v1/balance-updates', update, { traceparent: TRACEPARENT });
  expect(status).toBe(200);
  const isIn = (span: CollectedSpan) => span.traceId === TRACE_ID;
  const spans = await traceWith({ POST: 1, apply_changes: 1, publish: 2, process: 1, INSERT: 1 }, isIn);
  const server = one(spans, 'POST /v1/balance-updates');
  expect(server).toMatchObject({
    service: 'highload-balance-api',
    parentId: CLIENT_SPAN_ID,
    attributes: {
      'http.request.method': 'POST',
      'http.route': '/v1/balance-updates',
      'http.response.status_code': 200,
    },
  });
  const batch = one(spans, 'apply_changes');
  expect(batch).toMatchObject({ parentId: server.spanId, links: [], attributes: { 'db.operation.batch.size': 1 } });
  const [toLedger, toSubscribers] = [broker.topology.ledgerQueue, broker.topology.eventsExchange].map((name) => {
    const publish = one(spans, `publish ${name}`);
    expect(publish).toMatchObject({
      parentId: server.spanId,
      attributes: { 'messaging.system': 'rabbitmq', 'messaging.destination.name': name },
    });
    return publish;
  });
  const consume = one(spans, 'process');
  expect(consume).toMatchObject({ service: 'highload-balance-worker', parentId: toLedger?.spanId });
  expect(one(spans, 'INSERT ledger').parentId).toBe(consume.spanId);
  const id = (await eventIds(database))('alice', 1);
  await until('the event arrived', () => events.some(({ messageId }) => messageId === id));
  const event = events.find(({ messageId }) => messageId === id);
  expect(event?.headers.traceparent).toBe(`00-${TRACE_ID}-${toSubscribers?.spanId}-01`);
});

it('begins a trace for a bulk request that comes without one, and publishes each of its changes in it', async () => {
  const updates = ['bob', 'carol', 'bob'].map((accountId) => ({ accountId, amount: 1 }));
  await send(traced, 'POST', '/v1/balance-updates/bulk', { updates });
  const root = (span: CollectedSpan) => span.name.endsWith('/bulk');
  await until('the request arrived', () => collector.spans.some(root));
  const server = one(collector.spans, 'POST /v1/balance-updates/bulk');
  expect(server.parentId).toBe('');
  const { eventsExchange, ledgerQueue } = broker.topology;
  const toSubscribers = `publish ${eventsExchange}`;
  const toLedger = `publish ${ledgerQueue}`;
  const counts = { [toSubscribers]: 3, [toLedger]: 1, process: 1 };
  const spans = await traceWith(counts, (span) => span.traceId === server.traceId);
  const parentsOf = (name: string) =>
    spans.filter((span) => span.name.startsWith(name)).map(({ parentId }) => parentId);
  expect(parentsOf(toSubscribers)).toEqual([server.spanId, server.spanId, server.spanId]);
  // Several events in one message to the ledger have each their own context.
  expect(new Set(parentsOf(toLedger))).toEqual(new Set([server.spanId]));
  const parents = [server.spanId, ...spans.filter(({ name }) => name === toLedger).map(({ spanId }) => spanId)];
  for (const parent of parentsOf('process')) expect(parents).toContain(parent);
});

it('links a batch with each of the requests in it', async () => {
  const lock = await database.pool.connect();
  await lock.query('BEGIN');
  await lock.query("SELECT FROM account WHERE account_id = 'carol' FOR UPDATE");
  const post = () => send(traced, 'POST', '/v1/balance-updates', { accountId: 'carol', amount: 1 });
  const answers = [post()];
  try {
    await until('the first waits for the lock', async () => {
      const { rows } = await database.pool.query(
        "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
      );
      return rows.length > 0;
    });
    answers.push(...Array.from({ length: 8 }, post));
    await until('the others wait for it', async () => {
      const metrics = await (await fetch(`${traced}/metrics`)).text();
      return Number(/^balance_changes_waiting (\d+)/m.exec(metrics)?.[1]) === 8;
    });
  } finally {
    await lock.query('COMMIT');
    lock.release();
  }
  await Promise.all(answers);
  const isBatch = (span: CollectedSpan) =>
    span.attributes['db.operation.batch.size'] === 8 && span.name.startsWith('apply');
  await until('the batch arrived', () => collector.spans.some(isBatch));
  const batch = collector.spans.find(isBatch) as CollectedSpan;
  const requests = [batch.parentId, ...batch.links];
  expect(new Set(requests).size).toBe(8);
  await until('its requests arrived', () =>
    requests.every((id) => collector.spans.some(({ spanId }) => spanId === id)),
  );
});

it('exports nothing where traces are off, and hands on the header of the client as it came', async () => {
  const { url } = await startApiHere(database, broker, {
    OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
    OTEL_SDK_DISABLED: 'true',
    RELAY: 'off',
  });
  const traceparent = `00-${'c'.repeat(32)}-${CLIENT_SPAN_ID}-01`;
  await send(url, 'POST', '/v1/balance-updates', { accountId: 'dave', amount: 5 }, { traceparent });
  const { rows } = await database.pool.query(
    "SELECT traceparent FROM outbox WHERE account_id = 'dave' ORDER BY version",
  );
  expect(rows).toEqual([{ traceparent: null }, { traceparent }]); // the opening came without one
  // The relay, which traces, sends its span after any that this API could have sent.
  await traceWith({ publish: 2 }, (span) => span.traceId === 'c'.repeat(32));
  expect(
    collector.spans
      .filter((span) => span.traceId === 'c'.repeat(32) && span.service.endsWith('api'))
      .map(({ name }) => name.split(' ')[0]),
  ).toEqual(['publish', 'publish']);
});

it('answers and stops in time while the collector takes spans and never answers', async () => {
  const silent = createServer((socket) => socket.on('error', () => {}).resume()).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  onCleanUp(async () => void silent.close());
  const endpoint = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
  const { url, stop } = await startApiHere(database, broker, { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint, RELAY: 'off' });
  const asked = once(silent, 'connection');
  const startedAtMs = performance.now();
  await Promise.all(
    Array.from({ length: 50 }, async () => {
      const { status } = await send(url, 'POST', '/v1/balance-updates', { accountId: 'bob', amount: 1 });
      expect(status).toBe(200);
    }),
  );
  expect(performance.now() - startedAtMs).toBeLessThan(5000); // sending would take 10 s
  await asked;
  const stoppingAtMs = performance.now();
  await stop();
  expect(performance.now() - stoppingAtMs).toBeLessThan(8000);
});
