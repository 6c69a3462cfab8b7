// What every test file needs: a database and broker names of its own on the run's servers, the
// system on top, HTTP. What is made here is taken away again by cleanUp(), also when a test failed.
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { ChannelModel } from 'amqplib';
import type pg from 'pg';
import { inject } from 'vitest';
import { startApi } from '../../src/api/api.ts';
import type { Operation } from '../../src/api/updates/operation.ts';
import { createKey } from '../../src/cli/api-keys.ts';
import { SCOPES, type Scope } from '../../src/shared/api-key.ts';
import { closeConnection, connect } from '../../src/shared/broker.ts';
import { listChainHeads } from '../../src/shared/chain-head.ts';
import { CHANGE_COLUMN_NAMES, CHANGE_COLUMNS, type Change, eventId, SELECT_CHANGE } from '../../src/shared/change.ts';
import { readApiSettings, readWorkerSettings } from '../../src/shared/config.ts';
import type { BalanceEvent, ChainHead } from '../../src/shared/contract.ts';
import { openClient, openPool } from '../../src/shared/database.ts';
import { createLogger } from '../../src/shared/logging.ts';
import { migrate } from '../../src/shared/migrations.ts';
import { ALL_EVENTS, declareTopology, topologyOf } from '../../src/shared/topology.ts';
import { inSnapshot, type Verification, verify } from '../../src/shared/verification.ts';
import { PLAN_SINCE, type VerificationSince, verifySince } from '../../src/shared/verification-since.ts';
import { startWorker } from '../../src/worker/worker.ts';
import { endsWithUs } from './reaper.ts';

const log = createLogger('test', process.env.TEST_LOG_LEVEL ?? 'silent');
const cleanups: (() => Promise<unknown>)[] = [];

/** Undoes everything, newest first; also what a clean-up needed itself. Call it in afterAll. */
export async function cleanUp(): Promise<void> {
  for (let next = cleanups.pop(); next; next = cleanups.pop()) await next();
}

/** How many cleanUp() would undo. */
export function cleanupsLeft(): number {
  return cleanups.length;
}

export function onCleanUp(cleanup: () => Promise<unknown>): void {
  cleanups.push(cleanup);
}

/** A new folder, deleted at clean-up. */
export async function createFolder(): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'highload-balance-test-'));
  onCleanUp(() => rm(folder, { recursive: true }));
  return folder;
}

/** Of the time, what polling may take: on a busy machine many wait at once, and would be what keeps it busy. */
const POLLING_SHARE = 0.2;
const POLL_MIN_MS = 20;
const POLL_MAX_MS = 1000;

/** Polls until the condition holds; fails with `what` when it does not in time. */
export async function until(
  what: string,
  condition: () => Promise<boolean> | boolean,
  timeoutMs = 40_000,
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const startedAtMs = performance.now();
    if (await condition()) return;
    if (Date.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain until ${what}`);
    const pauseMs = (performance.now() - startedAtMs) * (1 / POLLING_SHARE - 1);
    await delay(Math.min(POLL_MAX_MS, Math.max(POLL_MIN_MS, pauseMs)));
  }
}

export interface Database {
  url: string;
  pool: pg.Pool;
}

/** A new database, dropped again at clean-up. @param serverUrl a server of the file's own, else the run's. */
export async function createDatabase(options: { migrated?: boolean; serverUrl?: string } = {}): Promise<Database> {
  const serverUrl = options.serverUrl ?? inject('postgresUrl');
  const isMigrated = options.migrated ?? true;
  const isCopied = isMigrated && !options.serverUrl;
  const name = `test_${randomUUID().replaceAll('-', '')}`;
  await administer(serverUrl, `CREATE DATABASE ${name}${isCopied ? ` TEMPLATE ${inject('migratedDatabase')}` : ''}`);
  if (!options.serverUrl) onCleanUp(() => administer(serverUrl, `DROP DATABASE ${name} WITH (FORCE)`));
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  if (isMigrated && !isCopied) await migrate(url.href);
  const pool = openPool(url.href, 'test', 10, { access: 'any server' });
  onCleanUp(() => pool.end());
  return { url: url.href, pool };
}

/**
 * As a restored backup is: what the database holds now, in another one. Ends what is connected to
 * it.
 */
export async function copyDatabase(database: Database): Promise<Database> {
  const copy = await createDatabase({ migrated: false });
  const [from, to] = [database.url, copy.url].map((url) => new URL(url).pathname.slice(1));
  const serverUrl = inject('postgresUrl');
  await administer(serverUrl, `DROP DATABASE ${to} WITH (FORCE)`);
  await administer(serverUrl, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${from}'`);
  await administer(serverUrl, `CREATE DATABASE ${to} TEMPLATE ${from}`);
  return copy;
}

async function administer(serverUrl: string, statement: string): Promise<void> {
  const client = await openClient(serverUrl, 'test admin');
  await client.query(statement);
  await client.end();
}

export interface Broker {
  url: string;
  namespace: string;
  topology: ReturnType<typeof topologyOf>;
  /** Opens a connection, closed again at clean-up. */
  connect(): Promise<ChannelModel>;
}

/** @param parameter as it is written in a URL, which may have others already. */
export function withParameter(url: string, parameter: string): string {
  return `${url}${url.includes('?') ? '&' : '?'}${parameter}`;
}

/** Names of the file's own on a broker; exchange and queues are deleted at clean-up. */
export function createBroker(url: string = inject('amqpUrl')): Broker {
  const namespace = `test-${randomUUID()}`;
  const topology = topologyOf(namespace);
  if (url === inject('amqpUrl')) {
    onCleanUp(async () => {
      const connection = await connect(url, 'test clean-up');
      const channel = await connection.createChannel();
      await channel.deleteQueue(topology.ledgerQueue);
      await channel.deleteQueue(topology.deadLetters);
      await channel.deleteExchange(topology.ledgerExchange);
      await channel.deleteExchange(topology.eventsExchange);
      await channel.deleteExchange(topology.deadLetters);
      await closeConnection(connection);
    });
  }
  return {
    url,
    namespace,
    topology,
    async connect() {
      const connection = await connect(url, 'test');
      onCleanUp(() => closeConnection(connection));
      return connection;
    },
  };
}

/** Where a command finds both. */
export function addressesOf({ url }: Pick<Database, 'url'>, broker: Pick<Broker, 'url' | 'namespace'>) {
  return { DATABASE_URL: url, AMQP_URL: broker.url, AMQP_NAMESPACE: broker.namespace };
}

/**
 * Environment of a process, or of settings, for this database and broker. Short pauses: tests wait
 * for them.
 */
export function environmentOf(database: Database, broker: Broker, extra: Record<string, string> = {}) {
  return {
    ...addressesOf(database, broker),
    HOST: '127.0.0.1',
    PORT: '0',
    AUTH: 'off',
    RELAY_REPUBLISH_MS: '500',
    ...extra,
  };
}

/** The API inside this process. @returns its base URL. */
export async function startApiHere(database: Database, broker: Broker, extra: Record<string, string> = {}) {
  const api = await startApi(readApiSettings(environmentOf(database, broker, extra)), log);
  onCleanUp(() => api.stop());
  return { url: `http://127.0.0.1:${api.port}`, stop: () => api.stop() };
}

/** The worker inside this process. */
export async function startWorkerHere(database: Database, broker: Broker, extra: Record<string, string> = {}) {
  const worker = await startWorker(readWorkerSettings(environmentOf(database, broker, extra)), log);
  onCleanUp(() => worker.stop());
  return worker;
}

/** A new key, known to every process at once. @returns the headers that carry it, its id and its token. */
export async function createApiKey(
  { pool }: Database,
  actor: string,
  scopes: readonly Scope[] = SCOPES,
  rateLimit?: number,
) {
  const client = await pool.connect();
  try {
    const { key, token } = await createKey(client, { actor, scopes, rateLimit });
    return { id: key.id, token, headers: { authorization: `Bearer ${token}` } };
  } finally {
    client.release();
  }
}

/**
 * The part of this process's environment that the processes of tests get. The compile cache is the
 * run's (global-setup.ts).
 */
export const INHERITED = { PATH: process.env.PATH, NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE };

export interface LogLine {
  level: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal';
  time: string;
  pid: number;
  msg: string;
  // biome-ignore lint/suspicious/noExplicitAny: each message has members of its own
  [member: string]: any;
}

export interface Spawned {
  child: ChildProcess;
  /** The standard output so far: JSON log lines. */
  output(): string;
  /** The log lines so far; of one message, if it is given. */
  lines(msg?: string): LogLine[];
  /** Of the API, or of the worker's health server. @throws when LOG_LEVEL hides the line that names the port. */
  url(): string;
  /** SIGKILL; returns when it is gone. */
  kill(): Promise<void>;
}

/**
 * The API or the worker as a process of its own, ready when this returns; with API_PROCESSES, all
 * of them are.
 * @param tree the folder of another release; by default it is this clone.
 */
export async function spawnProcess(
  main: 'api' | 'worker',
  environment: Record<string, string>,
  tree: string = fileURLToPath(new URL('../../', import.meta.url)),
): Promise<Spawned> {
  const file = path.join(tree, 'src', main, 'main.ts');
  const child = spawn(process.execPath, [file], {
    env: { ...INHERITED, ...environment },
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  });
  endsWithUs(child);
  let output = '';
  child.stdout?.on('data', (chunk) => {
    output += chunk;
  });
  const gone = once(child, 'exit');
  const kill = async () => {
    child.kill('SIGKILL');
    await gone;
  };
  onCleanUp(kill);
  const ready = once(child, 'message');
  await Promise.race([
    ready,
    gone.then(() => {
      throw new Error(`the ${main} process ended early:\n${output}`);
    }),
  ]);
  const lines = (msg?: string): LogLine[] =>
    output
      .split('\n')
      .slice(0, -1) // the rest may be half a line
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line))
      .filter((line) => msg === undefined || line.msg === msg);
  const started = () => lines(`${main} started`);
  const url = () => {
    const [first] = started();
    if (!first) throw new Error(`the ${main} logs no port with LOG_LEVEL=${environment.LOG_LEVEL}`);
    return `http://127.0.0.1:${first.port ?? first.healthPort}`;
  };
  // The log has a pipe of its own, which may be slower than the message.
  const { LOG_LEVEL = 'info', API_PROCESSES = '1' } = environment;
  if (['trace', 'debug', 'info'].includes(LOG_LEVEL)) {
    const processes = main === 'api' ? Number(API_PROCESSES) : 1;
    await until('its log has come', () => started().length >= processes);
  }
  return { child, output: () => output, lines, url, kill };
}

export interface Received {
  routingKey: string;
  messageId: string;
  headers: Record<string, unknown>;
  body: BalanceEvent;
}

/** A subscriber with a queue of its own. The list grows as events arrive. */
export async function subscribe(broker: Broker, pattern = ALL_EVENTS): Promise<Received[]> {
  const received: Received[] = [];
  const connection = await broker.connect();
  const channel = await connection.createChannel();
  await declareTopology(channel, broker.topology);
  const { queue } = await channel.assertQueue('', { exclusive: true });
  await channel.bindQueue(queue, broker.topology.eventsExchange, pattern);
  await channel.consume(
    queue,
    (message) => {
      if (!message) return;
      received.push({
        routingKey: message.fields.routingKey,
        messageId: message.properties.messageId,
        headers: message.properties.headers ?? {},
        body: JSON.parse(message.content.toString()),
      });
    },
    { noAck: true },
  );
  return received;
}

/** Applies an update in the database without the API, `times` times in one batch. */
export async function applyDirectly(
  client: pg.ClientBase | pg.Pool,
  accountId: string,
  amount: number,
  times = 1,
): Promise<void> {
  const { rows } = await client.query(
    `SELECT (array_remove(outcomes, NULL))[1] AS refusal FROM apply_changes(
       ARRAY[$1], array_fill(1, ARRAY[$3::integer]), array_fill($2::bigint, ARRAY[$3::integer])${', NULL'.repeat(22)})`,
    [accountId, amount, times],
  );
  if (rows[0].refusal !== null) throw new Error(`not applied: ${rows[0].refusal}`);
}

/** As the API gives it to a lane. */
export function updateOperation(
  accountId: string,
  amount: number,
  given: Partial<Pick<Operation, 'actor' | 'idempotencyKey' | 'fingerprint'>> & { reference?: string | null } = {},
): Operation {
  const { reference = null, ...its } = given;
  const leg = { accountId, amount, reference, metadata: null, expectedVersion: null, upTo: false };
  return {
    ...{ kind: 'update', legs: [leg], keyAccountId: accountId },
    ...{ idempotencyKey: null, fingerprint: null, actor: null, traceparent: null, ...its },
  };
}

export async function insertAccounts({ pool }: Database, ...ids: string[]): Promise<void> {
  await pool.query(`SELECT open_account(id, 'UNIT', 0, NULL, NULL, NULL) FROM unnest($1::text[]) AS id`, [ids]);
}

/**
 * A change that no account ever had: the opening at version 0, else a credit of 1, unless `given`
 * says otherwise.
 */
export function makeChange(
  given: Pick<Change, 'accountId' | 'version'> & Partial<Change>,
): Change & { traceparent: string | null } {
  const { version, amount = version === 0 ? 0 : 1 } = given;
  const ofAccount = version === 0 ? ('account.opened' as const) : ('account.changed' as const);
  const ofMoney = amount > 0 ? ('balance.credited' as const) : ('balance.debited' as const);
  const { type = amount === 0 ? ofAccount : ofMoney } = given;
  const isOfAccount = type.startsWith('account.');
  return {
    epoch: 1,
    previousEpoch: version === 0 ? null : 1,
    type,
    asset: 'UNIT',
    amount,
    heldChange: 0,
    balance: version,
    held: 0,
    createdAt: new Date('2026-11-23T19:43:56.550Z'),
    reference: null,
    actor: null,
    metadata: null,
    transferId: null,
    reverses: null,
    holdId: null,
    holdStatus: null,
    holdRemaining: null,
    holdExpiresAt: null,
    overdraftLimit: isOfAccount ? 0 : null,
    maxBalance: null,
    status: isOfAccount ? 'open' : null,
    traceparent: null,
    ...given,
  };
}

/** What the outbox holds of an account: its changes in the order of their versions. */
export async function outboxChanges({ pool }: Database, accountId: string): Promise<Change[]> {
  const { rows } = await pool.query(
    `SELECT ${SELECT_CHANGE} FROM outbox WHERE account_id = $1 ORDER BY outbox.version`,
    [accountId],
  );
  return rows;
}

/** Writes a change that its account never had. */
export async function insertChange({ pool }: Database, table: 'outbox' | 'ledger', change: Change): Promise<void> {
  await pool.query(
    `INSERT INTO ${table} (${CHANGE_COLUMN_NAMES}) VALUES (${CHANGE_COLUMNS.map((_, index) => `$${index + 1}`).join(', ')})`,
    CHANGE_COLUMNS.map(([, , name]) => change[name]),
  );
}

/**
 * Records changes of an account in the ledger as the outbox holds them, without a worker. Both
 * versions are included.
 */
export async function recordDirectly(
  { pool }: Database,
  accountId: string,
  firstVersion: number,
  lastVersion: number,
): Promise<void> {
  await pool.query(
    `INSERT INTO ledger (${CHANGE_COLUMN_NAMES})
     SELECT ${CHANGE_COLUMN_NAMES} FROM outbox WHERE account_id = $1 AND version BETWEEN $2 AND $3`,
    [accountId, firstVersion, lastVersion],
  );
}

/** Ids of the events of this database in its present epoch: `id('a', 1)`. */
export async function eventIds({ pool }: Database): Promise<(accountId: string, version: number) => string> {
  const { epoch } = (await pool.query('SELECT current_epoch() AS epoch')).rows[0];
  return (accountId, version) => eventId({ accountId, version, epoch });
}

/**
 * Entries of an account that were never changes: a credit of 1 each, versions 1 to `count` after
 * its opening.
 */
export async function fillLedger(
  { pool }: Database,
  id: string,
  count: number,
  reference: string | null = null,
): Promise<void> {
  await pool.query(
    `INSERT INTO ledger (account_id, version, epoch, previous_epoch, type, asset, amount, held_change, balance, held, reference, created_at)
     SELECT $1, version, 1, 1, 'balance.credited', 'UNIT', 1, 0, version, 0, $3, now() FROM generate_series(1, $2::integer) AS version`,
    [id, count, reference],
  );
}

export interface Answer {
  status: number;
  headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into bodies of every shape
  body: any;
}

/** Sends JSON (or a string as it is) and reads the JSON answer. */
export async function send(
  url: string,
  method: 'GET' | 'POST' | 'PATCH',
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const response = await fetch(url + path, {
    method,
    headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    signal: AbortSignal.timeout(30_000),
  });
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: text === '' ? undefined : JSON.parse(text) };
}

/**
 * On a busy machine the first requests come before the lanes are connected, and are answered
 * `unavailable`.
 */
export function untilReady(url: string): Promise<void> {
  return until(`${url} is ready`, async () => (await send(url, 'GET', '/readyz')).status === 200);
}

/**
 * The same, again for as long as the answer is `overloaded`: a crowd of a test can be more than a
 * busy machine serves at once.
 */
export async function sendPatiently(...request: Parameters<typeof send>): Promise<Answer> {
  for (;;) {
    const answer = await send(...request);
    if (answer.body?.code !== 'overloaded') return answer;
  }
}

/** Creates an account and gives it its first credit. */
export async function createAccount(
  url: string,
  id: string,
  balance = 0,
  headers: Record<string, string> = {},
): Promise<void> {
  const created = await send(url, 'POST', '/v1/accounts', { id }, headers);
  if (created.status !== 201) throw new Error(`account not created: ${JSON.stringify(created.body)}`);
  if (balance === 0) return;
  const credited = await send(url, 'POST', '/v1/balance-updates', { accountId: id, amount: balance }, headers);
  if (credited.status !== 200) throw new Error(`account not credited: ${JSON.stringify(credited.body)}`);
}

/** The state of the database as `npm run verify` sees it. */
export async function verified({ pool }: Database): Promise<Verification> {
  const client = await pool.connect();
  try {
    return await verify(client);
  } finally {
    client.release();
  }
}

/** The heads of all accounts that have one, as highload-balance heads prints them. */
export async function headsOf({ pool }: Database): Promise<ChainHead[]> {
  const heads: ChainHead[] = [];
  const client = await pool.connect();
  try {
    for await (const page of listChainHeads(client)) heads.push(...page);
    return heads;
  } finally {
    client.release();
  }
}

/** What comes after the heads, in order of their accounts; `pageSize` of them at a time. */
export async function verifiedSince(
  { pool }: Database,
  heads: readonly ChainHead[],
  pageSize = 10_000,
): Promise<VerificationSince> {
  const client = await pool.connect();
  async function* pages() {
    for (let first = 0; first < heads.length; first += pageSize) yield heads.slice(first, first + pageSize);
  }
  try {
    return await inSnapshot(client, PLAN_SINCE, () => verifySince(client, pages()));
  } finally {
    client.release();
  }
}

/**
 * Waits until the ledger holds every accepted change, then proves it. Longer than the worker takes to replace a ledger queue
 * that answers nothing: RabbitMQ 3.10 can make one of a queue that is deleted and declared again.
 */
export async function drained(database: Database, timeoutMs = 120_000): Promise<Verification> {
  await until('the ledger holds everything', async () => (await pendingChanges(database)) === 0, timeoutMs);
  return verified(database);
}

/** Accepted changes that the ledger lacks. */
export async function pendingChanges({ pool }: Database): Promise<number> {
  const { rows } = await pool.query(
    'SELECT count(*) AS rows FROM outbox WHERE NOT EXISTS (SELECT FROM ledger WHERE (ledger.account_id, ledger.version) = (outbox.account_id, outbox.version))',
  );
  return rows[0].rows;
}

export async function ledgerRows({ pool }: Database): Promise<number> {
  return (await pool.query('SELECT count(*) AS rows FROM ledger')).rows[0].rows;
}

/** What a command that has nothing to complain of prints to stderr: how far it is, every 5 s. */
export const ONLY_PROGRESS = /^(\d+ s: .*\n)*$/;
