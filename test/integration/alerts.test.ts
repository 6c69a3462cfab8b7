// Each alert fires when its condition is caused on real servers, and none does before; rules,
// runbook and dashboard are about metrics and labels that the processes expose.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { encodeEvent } from '../../src/shared/events.ts';
import { startProxy } from '../chaos/proxy.ts';
import {
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  drained,
  insertAccounts,
  insertChange,
  makeChange,
  onCleanUp,
  send,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';
import { needing } from '../support/needing.ts';
import { firing, hasPromtool, promtool, type Scrape, scrape, type Trouble } from '../support/promtool.ts';

const pathOf = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const RULES = 'docs/monitoring/alerts.yml';
const text = readFileSync(pathOf(RULES), 'utf8');
const alerts = [...text.matchAll(/alert: (\w+)/g)].map(([, name]) => name as string);
const runbookPage =
  readFileSync(pathOf('docs/observe.md'), 'utf8')
    .split(/^(?=## )/m)
    .find((part) => part.startsWith('## Metrics')) ?? '';
const dashboard = JSON.parse(readFileSync(pathOf('docs/monitoring/dashboard.json'), 'utf8'));

/** By the alert that it has to raise. */
const troubles = new Map<string, Trouble>();
const scrapes: Scrape[] = [];

async function look(targets: Record<string, string>): Promise<Scrape> {
  const seen = await scrape(targets);
  scrapes.push(seen);
  return seen;
}

function expectAlerts(names: readonly string[], before: Scrape, after: Scrape, goesOn: boolean): void {
  for (const name of names) troubles.set(name, { before, after, goesOn });
}

const reading = ({ values }: Scrape, metric: string) =>
  Math.max(...[...values].filter(([series]) => series.startsWith(metric)).map(([, value]) => value));

/**
 * Two gigabytes are not written for a test, nor half a minute waited: the number alone is another.
 */
function changed(seen: Scrape, metric: string, to: number): Scrape {
  const values = [...seen.values].map(([series, value]) => [series, series.startsWith(metric) ? to : value] as const);
  return { ...seen, values: new Map(values) };
}

/** Slow, full and cut off from PostgreSQL. */
async function overwhelmed(): Promise<void> {
  const database = await createDatabase();
  const { url } = await startApiHere(database, createBroker(), { LANES: '1', QUEUE_ROWS_MAX: '2', RELAY: 'off' });
  const targets = { 'balance-api': url };
  await insertAccounts(database, 'a');
  const update = () => send(url, 'POST', '/v1/balance-updates', { accountId: 'a', amount: 1 });
  for (let count = 0; count < 20; count += 1) expect((await update()).status).toBe(200);
  await look(targets); // the first of a process is about the loop at its start
  const before = await look(targets);
  expectAlerts(['BalanceNoActiveRelay'], before, before, false); // no process relays: RELAY is off

  const blocker = await database.pool.connect();
  await blocker.query('BEGIN');
  await blocker.query("SELECT FROM account WHERE account_id = 'a' FOR UPDATE");
  const held = Array.from({ length: 20 }, update);
  const heldSinceMs = performance.now();
  await until('it is held for long', () => performance.now() - heldSinceMs > 700);
  const { rows } = await blocker.query(
    "SELECT pg_terminate_backend(pid) AS ended FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
  );
  expect(rows).toEqual([{ ended: true }]);
  await blocker.query('COMMIT');
  blocker.release();
  const codes = (await Promise.all(held)).map(({ status, body }) => body.code ?? status);
  expect(new Set(codes)).toEqual(new Set(['outcome_unknown', 'overloaded', 200]));
  const after = await look(targets);
  expectAlerts(['BalanceOutcomesUnknown'], before, after, false);
  expectAlerts(['BalanceOverloaded', 'BalanceRequestsSlow'], before, after, true);

  const administrator = new pg.Client(inject('postgresUrl'));
  await administrator.connect();
  const name = new URL(database.url).pathname.slice(1);
  await administrator.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
  await administrator.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1', [name]);
  await administrator.end();
  await until('it is down', async () => (await update()).status === 503);
  // An answer is counted a moment after it was given.
  const failed = 'http_request_duration_seconds_count{method="POST",route="/v1/balance-updates",status="503"';
  await until('it is counted', async () => reading(await scrape(targets), failed) > reading(after, failed));
  expectAlerts(['BalanceRequestsFail'], after, await look(targets), true);
}

/** Events do not move: first without a worker, then without RabbitMQ, then without the process. */
async function stuck(): Promise<void> {
  const database = await createDatabase();
  const broker = createBroker();
  const target = new URL(broker.url);
  const proxy = await startProxy({ port: Number(target.port || 5672) });
  onCleanUp(() => proxy.close());
  target.host = `127.0.0.1:${proxy.port}`;
  const { url, stop } = await startApiHere(database, { ...broker, url: target.href });
  const targets = { 'balance-api': url };
  await until('both links of its relay are connected', async () => {
    const seen = await scrape(targets);
    const link = (track: string) => reading(seen, `rabbitmq_link{track="${track}",state="connected"`);
    return reading(seen, 'relay_active') === 1 && link('ledger') === 1 && link('subscribers') === 1;
  });
  const before = await look(targets);

  // As it would be there five minutes later.
  const createdAt = new Date(Date.now() - 5 * 60_000);
  await insertChange(database, 'outbox', makeChange({ accountId: 'a', version: 0, createdAt }));
  await until('it is seen', async () => reading(await scrape(targets), 'outbox_pending_changes') === 1);
  const lagging = await look(targets);
  expectAlerts(['BalanceLedgerLags'], before, lagging, false);
  expectAlerts(['BalanceOutboxLarge'], before, changed(lagging, 'outbox_size_bytes', 3e9), false);

  // What RabbitMQ says at its memory or disk limit: method connection.blocked. broker-link.test.ts
  // has a real alarm.
  const reason = Buffer.from('low on memory');
  const payload = Buffer.concat([Buffer.from([0, 10, 0, 60, reason.length]), reason]);
  const frame = Buffer.concat([Buffer.from([1, 0, 0, 0, 0, 0, payload.length]), payload, Buffer.from([0xce])]);
  for (const connection of proxy.connections()) connection.send('toClient', frame);
  await until(
    'it is blocked',
    async () => reading(await scrape(targets), 'rabbitmq_link{track="ledger",state="blocked"') === 1,
  );
  expectAlerts(['BalanceBrokerBlocked'], before, await look(targets), false);

  proxy.refuse(true);
  for (const connection of proxy.connections()) connection.cut();
  await until(
    'it is down',
    async () => reading(await scrape(targets), 'rabbitmq_link{track="ledger",state="disconnected"') === 1,
  );
  expectAlerts(['BalanceBrokerLinkDown'], before, await look(targets), false);

  const lag = (seen: Scrape) => reading(seen, 'nodejs_eventloop_lag_p99_seconds');
  let [free, busy] = [before, before];
  await until('there is CPU to spare', async () => {
    free = await look(targets);
    return lag(free) < 0.2; // since the look before
  });
  await until('there is none', async () => {
    const blockedUntilMs = performance.now() + 600;
    while (performance.now() < blockedUntilMs);
    await new Promise((resolve) => setTimeout(resolve, 20)); // for the loop's own clock to tick
    busy = await look(targets);
    return lag(busy) > 0.3;
  });
  expectAlerts(['BalanceEventLoopBusy'], free, busy, false);

  await stop();
  expectAlerts(['BalanceProcessDown'], before, await look(targets), false);
}

/** What others do to the service through RabbitMQ, and a ledger that cannot be written. */
async function abused(): Promise<void> {
  const database = await createDatabase();
  const broker = createBroker();
  const { url } = await startApiHere(database, broker, { SUBSCRIBER_PATIENCE_MS: '5000' });
  const worker = await startWorkerHere(database, broker, { HEALTH_PORT: '0', HEALTH_HOST: '127.0.0.1' });
  const targets = { 'balance-api': url, 'balance-worker': `http://127.0.0.1:${worker.healthPort}` };
  await createAccount(url, 'a', 100);
  await drained(database);
  await until('it is counted', async () => reading(await scrape(targets), 'dead_letters') === 0);
  const before = await look(targets);

  const channel = await (await broker.connect()).createChannel();
  const full = { exclusive: true, arguments: { 'x-max-length': 1, 'x-overflow': 'reject-publish' } };
  const { queue } = await channel.assertQueue('', full);
  await channel.bindQueue(queue, broker.topology.eventsExchange, 'balance.debited');
  const debit = () => send(url, 'POST', '/v1/balance-updates', { accountId: 'a', amount: -1 });
  for (let count = 0; count < 3; count += 1) expect((await debit()).status).toBe(200);
  const forged = makeChange({ accountId: 'a', version: 99 });
  channel.sendToQueue(broker.topology.ledgerQueue, encodeEvent(forged));
  // As if the database had been there in epoch 1000, and what it did in epoch 2000 were lost.
  await database.pool.query(`INSERT INTO epoch VALUES (1000, 'past', now(), 'past', 0)`);
  const lost = makeChange({ accountId: 'a', version: 98, epoch: 2000, previousEpoch: 1000 });
  channel.sendToQueue(broker.topology.ledgerQueue, encodeEvent(lost));
  await until('they wait', async () => reading(await scrape(targets), 'subscribers_waiting_seconds') > 0);
  const waiting = await look(targets);
  expectAlerts(['BalanceSubscribersWait'], before, changed(waiting, 'subscribers_waiting_seconds', 40), false);
  expectAlerts(['BalanceOutboxHeld'], before, changed(waiting, 'outbox_truncation_waiting_seconds', 700), false);
  await until('they are passed over', async () => {
    return reading(await scrape(targets), 'subscribers_undelivered{what="ranges_passed_over"') > 0;
  });
  await until('it is counted', async () => reading(await scrape(targets), 'dead_letters') === 1);
  await until(
    'the lost one too',
    async () => reading(await scrape(targets), 'ledger_events_total{outcome="superseded"') === 1,
  );
  const after = await look(targets);
  const raised = [
    'BalanceForgedEvents',
    'BalanceSupersededEvents',
    'BalanceDeadLetters',
    'BalanceSubscriberMissedEvents',
  ];
  expectAlerts(raised, before, after, false);

  await database.pool.query('ALTER TABLE ledger ADD CONSTRAINT no_more CHECK (false) NOT VALID');
  const credit = await send(url, 'POST', '/v1/balance-updates', { accountId: 'a', amount: 1 });
  expect(credit.status).toBe(200);
  await until('it failed', async () => reading(await scrape(targets), 'ledger_write_failures_total') > 0);
  expectAlerts(['BalanceLedgerWritesFail'], after, await look(targets), true);
  await database.pool.query('ALTER TABLE ledger DROP CONSTRAINT no_more');
  await drained(database);
}

/**
 * The database continues from a state without a change that was answered. lost-commits.test.ts
 * promotes a real standby.
 */
async function cut(): Promise<void> {
  const database = await createDatabase();
  const { url } = await startApiHere(database, createBroker(), { RELAY: 'off' });
  const targets = { 'balance-api': url };
  await createAccount(url, 'a', 100);
  await createAccount(url, 'b', 100);
  const before = await look(targets);
  await database.pool.query(`
    DELETE FROM outbox WHERE account_id = 'a' AND version = 1;
    UPDATE account SET version = 0, balance = 0 WHERE account_id = 'a';
    SELECT raise_epoch()`);
  await until('it is found', async () => reading(await scrape(targets), 'balance_lost_answers_total') === 1);
  expectAlerts(['BalanceCommitsLost'], before, await look(targets), false);
}

beforeAll(async () => {
  await cut();
  await abused();
  await stuck();
  await overwhelmed();
});
afterAll(cleanUp);

needing('promtool: apt-get install prometheus', hasPromtool).describe('the rules', () => {
  it('and the scrape configuration are accepted by promtool', () => {
    const { status, output } = promtool(['check', 'config', pathOf('docs/monitoring/prometheus.yml')]);
    expect([status, output]).toEqual([0, expect.stringMatching(new RegExp(`SUCCESS: ${alerts.length} rules found`))]);
  });

  it.each(alerts)('raise %s when its condition is caused, and not before', (alert) => {
    const trouble = troubles.get(alert);
    if (!trouble) throw new Error(`no test causes ${alert}`);
    const isAlwaysOn = alert === 'BalanceNoActiveRelay'; // RELAY=off from the start
    expect(firing(pathOf(RULES), [alert], trouble)).toEqual({ calm: isAlwaysOn ? [alert] : [], trouble: [alert] });
  });
});

it('have a line in the runbook each', () => {
  const runbook = [...runbookPage.matchAll(/^\| `(Balance\w+)` \|/gm)];
  expect(alerts.length).toBeGreaterThan(0);
  expect(runbook.map(([, name]) => name)).toEqual(alerts);
});

it('and dashboard and runbook are about metrics and labels that exist', () => {
  const labelsOf = new Map<string, Set<string>>();
  for (const series of scrapes.flatMap(({ values }) => [...values.keys()])) {
    const name = series.slice(0, series.indexOf('{'));
    const labels = labelsOf.get(name) ?? new Set();
    for (const [, label] of series.matchAll(/(\w+)="/g)) labels.add(label as string);
    labelsOf.set(name, labels);
  }
  const panels: { targets?: { expr: string }[] }[] = dashboard.panels;
  const ofDashboard = panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr));
  expect(ofDashboard.length).toBeGreaterThan(10);
  const ofRules = [...text.matchAll(/expr: (?:>-\n)?((?:.*\n)+?) {8}(?:for|labels):/g)].map(
    ([, expr]) => expr as string,
  );
  expect(ofRules).toHaveLength(alerts.length);
  for (const expr of [...ofDashboard, ...ofRules]) {
    const names =
      expr.match(
        /\b(?:up|(?:http|balance|postgres|outbox|relay|rabbitmq|subscribers|ledger|dead|nodejs|process)_\w+)\b(?!-)/g,
      ) ?? [];
    const metrics = names.filter((name) => !expr.includes(`"${name}`));
    expect(metrics.length, expr).toBeGreaterThan(0);
    for (const name of metrics) expect([...labelsOf.keys()], expr).toContain(name);
    const known = new Set(metrics.flatMap((name) => [...(labelsOf.get(name) ?? [])]));
    for (const [, label] of expr.matchAll(/(\w+)(?:=|=~|!=|!~)"/g)) expect([...known], expr).toContain(label);
    for (const [, list] of expr.matchAll(/\bby \(([^)]*)\)/g)) {
      for (const label of list?.split(/,\s*/) ?? []) expect([...known], expr).toContain(label);
    }
    // A value that is asked for by name was seen as well.
    for (const [, label, value] of expr.matchAll(/(\w+)="([^"]*)"/g)) {
      const part = `${label}="${value}"`;
      expect(
        scrapes.some(({ values }) => [...values.keys()].some((series) => series.includes(part))),
        part,
      ).toBe(true);
    }
  }
  const described = [...runbookPage.matchAll(/^\| (`[a-z]+_.*?) \|/gm)].flatMap(
    ([, cell]) => cell?.match(/(?<=`)[a-z]+_[a-z_]+/g) ?? [],
  );
  expect(described.length).toBeGreaterThan(10);
  for (const name of described.filter((name) => !/^(?:nodejs|process)_$/.test(name))) {
    expect([...labelsOf.keys()], name).toContain(labelsOf.has(name) ? name : `${name}_count`);
  }
});
