import { type ChildProcess, type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import amqp from 'amqplib';
import pg from 'pg';
import { afterEach, beforeEach, expect, inject, it } from 'vitest';
import { freePort } from '../../src/local/free-port.ts';
import { isAlive, knownProcess, signal } from '../../src/local/process-end.ts';
import { type KnownProcess, type Runtime, readRuntime } from '../../src/shared/runtime.ts';
import { type Topology, topologyOf } from '../../src/shared/topology.ts';
import { needing } from '../support/needing.ts';
import { type Reaper, startReaper } from '../support/reaper.ts';

const MAIN = fileURLToPath(new URL('../../src/local/main.ts', import.meta.url));
const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const VERIFY = path.join(ROOT, 'src/cli/verify.ts');
const POLL_INTERVAL_MS = 50;

const hasIPv6 = Object.values(os.networkInterfaces()).some((addresses) =>
  addresses?.some(({ address }) => address === '::1'),
);

let reaper: Reaper;
let dir: string;
let env: NodeJS.ProcessEnv;
beforeEach(async () => {
  reaper = startReaper();
  dir = mkdtempSync(path.join(os.tmpdir(), 'highload-balance-test-'));
  chmodSync(dir, 0o755);
  reaper.add({ folder: dir });
  const { DATABASE_URL: _, ...rest } = process.env;
  env = {
    ...rest,
    DATA_DIR: dir,
    PORT: String(await freePort()),
    AMQP_URL: inject('amqpUrl'),
    AMQP_NAMESPACE: `start-${path.basename(dir).slice(-6)}`,
  };
});
afterEach(async () => {
  await reaper.close();
  await deleteTopology(topologyOf(String(env.AMQP_NAMESPACE)));
});

interface Run {
  child: ChildProcess;
  output: () => string;
  exited: Promise<number | null>;
}

function run(overrides: NodeJS.ProcessEnv = {}, ...options: string[]): Run {
  return follow(spawn(process.execPath, [MAIN, ...options], { env: { ...env, ...overrides } }));
}

function follow(child: ChildProcessWithoutNullStreams): Run {
  child.stdin.end();
  return followOpen(child);
}

/** Its input stays open. */
function followOpen(child: ChildProcessWithoutNullStreams): Run {
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk));
  const known = knownProcess(child.pid ?? 0);
  if (known) reaper.add({ process: known });
  return { child, output: () => output, exited: once(child, 'close').then(([code]) => code as number | null) };
}

interface Serving extends Run {
  runtime: Runtime;
  postmaster: KnownProcess;
}

/** The processes that still live: none after an orderly end. */
const survivors = ({ runtime, postmaster }: Serving) =>
  [...Object.values(runtime.processes), postmaster].filter((process) => isAlive(process));

/** Runs until the screen is there; the reaper learns about every server and process behind it. */
async function runUntilServing(started = run()): Promise<Serving> {
  await until(() => started.output().includes('Running at') || started.child.exitCode !== null, started.output);
  return servingOf(started);
}

function servingOf(started: Run): Serving {
  const runtime = readRuntime(dir);
  const postmaster = knownProcess(
    Number(readFileSync(path.join(dir, 'postgres/postmaster.pid'), 'utf8').split('\n')[0]),
  );
  if (postmaster) reaper.add({ process: postmaster });
  if (!runtime || !postmaster) throw new Error(`It does not run:\n${started.output()}`);
  for (const process of [runtime.processes.api, runtime.processes.worker]) if (process) reaper.add({ process });
  return { ...started, runtime, postmaster };
}

async function until(condition: () => boolean | Promise<boolean>, context: () => string): Promise<void> {
  const deadline = performance.now() + 40_000;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`Waited in vain:\n${context()}`);
    await delay(POLL_INTERVAL_MS);
  }
}

async function call(method: 'GET' | 'POST', target: string, body?: unknown) {
  const response = await fetch(`http://127.0.0.1:${env.PORT}${target}`, {
    method,
    ...(body !== undefined && { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
  });
  // biome-ignore lint/suspicious/noExplicitAny: answers of several shapes, each checked by the test that asks
  return (await response.json()) as any;
}

async function useChannel<Result>(use: (channel: amqp.Channel) => Result | Promise<Result>): Promise<Result> {
  const connection = await amqp.connect(inject('amqpUrl'), { timeout: 10_000 });
  const channel = await connection.createChannel();
  try {
    return await use(channel);
  } finally {
    await channel.close();
    await connection.close();
  }
}

// The broker may be the machine's own: nothing of ours stays on it.
function deleteTopology({ eventsExchange, ledgerExchange, ledgerQueue, deadLetters }: Topology): Promise<void> {
  return useChannel(async (channel) => {
    for (const queue of [ledgerQueue, deadLetters]) await channel.deleteQueue(queue);
    for (const exchange of [eventsExchange, ledgerExchange, deadLetters]) await channel.deleteExchange(exchange);
  });
}

/** Who each process is in the database. */
async function databaseUsers({ databaseUrl }: Runtime): Promise<Record<string, string[]>> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  const { rows } = await client.query(
    `SELECT CASE WHEN application_name ~ ' worker' THEN 'worker' ELSE 'api' END AS process, array_agg(DISTINCT usename::text) AS users
     FROM pg_stat_activity WHERE application_name ~ '^highload-balance' GROUP BY 1`,
  );
  await client.end();
  return Object.fromEntries(rows.map(({ process, users }) => [process, users]));
}

/** Whether a new role could connect, and make temporary tables. */
async function whatAnyoneMay({ databaseUrl }: Runtime): Promise<boolean[]> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  await client.query('BEGIN; CREATE ROLE passer_by LOGIN');
  const { rows } = await client.query(
    `SELECT has_database_privilege('passer_by', current_database(), privilege) AS may FROM unnest(ARRAY['CONNECT', 'TEMPORARY']) AS privilege`,
  );
  await client.end(); // what was begun is undone
  return rows.map(({ may }) => may);
}

const entriesOf = async (id: string) => (await call('GET', `/v1/accounts/${id}/entries`)).entries;

it('serves, records, stops on Ctrl-C, and the next start continues with the same balances', async () => {
  const first = await runUntilServing();
  expect(first.output()).toContain('{"accountId":"demo","amount":100,"balance":100,"version":1,');
  expect(first.output()).toContain('API keys     off');
  const { url } = first.runtime;
  expect(first.output()).toContain(`Console      ${url}/console\n  API          ${url}/docs\n`);
  expect(readFileSync(path.join(dir, 'api.log'), 'utf8')).toContain('AUTH is off: anyone who reaches this address');

  const second = run();
  expect(await second.exited).toBe(1);
  expect(second.output()).toContain(
    `It is already running in this folder (process ${first.child.pid}), at http://127.0.0.1:`,
  );

  await call('POST', '/v1/accounts', { id: 'alice' });
  expect(await call('POST', '/v1/balance-updates', { accountId: 'alice', amount: 70 })).toMatchObject({ balance: 70 });
  await until(async () => (await entriesOf('alice')).length === 2, first.output);

  expect(await databaseUsers(first.runtime)).toEqual({ api: ['balance_api_login'], worker: ['balance_worker_login'] });
  expect(await whatAnyoneMay(first.runtime)).toEqual([false, false]);
  const { password } = new URL(first.runtime.databaseUrl);
  expect(password.length).toBeGreaterThan(20);
  expect(first.output()).not.toContain(password);
  expect(first.output()).toContain(`Passwords    ${path.join(dir, 'runtime.json')}`);
  expect(statSync(path.join(dir, 'runtime.json')).mode & 0o777).toBe(0o600);

  first.child.kill('SIGINT');
  first.child.kill('SIGINT'); // npm sends again what the terminal has sent already: still one Ctrl-C
  expect(await first.exited, first.output()).toBe(0);
  expect(first.output()).not.toContain('Hurrying');
  // Not RabbitMQ: it is not ours.
  expect(first.output()).toContain('\nStopping: API, worker, PostgreSQL. Every answered update is kept.\n');
  const { api, worker } = first.runtime.processes;
  expect([api, worker].map((process) => process && isAlive(process))).toEqual([false, false]);

  const third = await runUntilServing();
  expect(await call('GET', '/v1/accounts/alice')).toMatchObject({ balance: 70, version: 1 });
  expect(await call('GET', '/v1/accounts/demo')).toMatchObject({ balance: 100 });
  third.child.kill('SIGTERM');
  expect(await third.exited, third.output()).toBe(0);
});

it('recovers by itself when any part is killed, itself included', async () => {
  const first = await runUntilServing();
  for (const name of ['worker', 'api'] as const) {
    const killed = readRuntime(dir)?.processes[name];
    if (!killed) throw new Error(`The ${name} is not known`);
    signal(killed, 'SIGKILL');
    await until(() => readRuntime(dir)?.processes[name]?.pid !== killed.pid, first.output);
  }
  await until(() => first.output().includes('The API is back'), first.output);
  await call('POST', '/v1/accounts', { id: 'bob' });
  await call('POST', '/v1/balance-updates', { accountId: 'bob', amount: 5 });

  first.child.kill('SIGKILL');
  await first.exited;
  const second = await runUntilServing();
  expect(second.output()).toContain('found the server of an earlier run');
  expect(await call('GET', '/v1/accounts/bob')).toMatchObject({ balance: 5 });
  await until(async () => (await entriesOf('bob')).length === 2, second.output);
  second.child.kill('SIGINT');
  expect(await second.exited, second.output()).toBe(0);
});

it('serves in a shell whose variables are meant for others', async () => {
  const nowhere = 'http://127.0.0.1:9';
  const hostile = {
    ...{ PGHOST: 'nowhere', PGPORT: '1', PGUSER: 'x', PGPASSWORD: 'y', PGDATABASE: 'z', PGOPTIONS: '-c foo=bar' },
    ...{
      PGSSLMODE: 'require',
      PGSSLNEGOTIATION: 'direct',
      PGSSLROOTCERT: '/nowhere',
      PGSERVICE: 'x',
      PGTZ: 'Asia/Tokyo',
    },
    ...{ HTTP_PROXY: nowhere, http_proxy: nowhere, HTTPS_PROXY: nowhere, ALL_PROXY: nowhere, NODE_USE_ENV_PROXY: '1' },
    ...{ NODE_OPTIONS: '--throw-deprecation', NODE_ENV: 'production', CDPATH: '/tmp:/', TZ: 'Pacific/Apia' },
    ...{ LANG: 'xx_YY', LC_ALL: 'tr_TR.UTF-8', HOME: '/nowhere', TMPDIR: '/nowhere', ERL_FLAGS: '-nonsense' },
  };
  const started = await runUntilServing(run(hostile));
  expect(await call('GET', '/v1/accounts/demo')).toMatchObject({ balance: 100 });
  const verified = spawnSync(process.execPath, [VERIFY], { env: { ...env, ...hostile }, encoding: 'utf8' });
  expect(verified).toMatchObject({ status: 0, stderr: '' });
  started.child.kill('SIGTERM');
  expect(await started.exited, started.output()).toBe(0);
  expect(survivors(started)).toEqual([]);
});

needing('::1, an address of this machine', hasIPv6).it('serves on the loopback address of IPv6', async () => {
  const started = await runUntilServing(run({ HOST: '::1' }));
  expect(started.runtime.url).toBe(`http://[::1]:${env.PORT}`);
  expect((await fetch(`${started.runtime.url}/readyz`)).status).toBe(200);
  started.child.kill('SIGTERM');
  expect(await started.exited, started.output()).toBe(0);
});

it('runs, and ends at SIGTERM, although nobody reads what it prints', async () => {
  const pipe = path.join(dir, 'full');
  spawnSync('mkfifo', [pipe]);
  const reader = spawn('sleep', ['170'], { stdio: [openSync(pipe, 'r+'), 'ignore', 'ignore'] });
  // Filled before it starts. When another Node that began before it ends, as npm does, the pipe
  // makes its writers wait.
  const [go, gone] = [path.join(dir, 'go'), path.join(dir, 'gone')];
  const other = `const fs = require('fs'); process.on('exit', () => fs.writeFileSync('${gone}', ''));
    setInterval(() => fs.existsSync('${go}') && process.exit(), 50);`;
  const script = `exec > "${pipe}"; timeout 1 cat /dev/zero; "$0" -e "$2" & sleep 2; exec "$0" "$1"`;
  const started = follow(spawn('sh', ['-c', script, process.execPath, MAIN, other], { env }));
  const isServing = () =>
    fetch(`http://127.0.0.1:${env.PORT}/readyz`).then(
      ({ ok }) => ok,
      () => false,
    );
  await until(isServing, started.output);
  writeFileSync(go, '');
  await until(() => existsSync(gone), started.output);
  await delay(500);
  const serving = servingOf(started);
  started.child.kill('SIGTERM');
  await started.exited;
  reader.kill('SIGKILL');
  expect(survivors(serving)).toEqual([]);
});

it.each(['SIGINT', 'SIGTERM', 'SIGKILL'] as const)('leaves nothing behind when npm gets %s', async (name) => {
  const started = await runUntilServing(follow(spawn('npm', ['start'], { cwd: ROOT, env })));
  started.child.kill(name);
  await started.exited;
  await until(() => survivors(started).length === 0, started.output);
  expect(started.output()).toContain('Stopping: API, worker, PostgreSQL.');
  expect(existsSync(path.join(dir, 'lock'))).toBe(false);
});

it('leaves no PostgreSQL behind when it cannot log in, or is interrupted while it starts', async () => {
  const first = await runUntilServing();
  first.child.kill('SIGTERM');
  expect(await first.exited, first.output()).toBe(0);
  const file = path.join(dir, 'postgres.json');
  const settings = readFileSync(file, 'utf8');
  writeFileSync(file, JSON.stringify({ ...JSON.parse(settings), password: 'wrong' }));
  const second = run();
  expect(await second.exited).toBe(1);
  expect(second.output()).toMatch(/does not accept connections: password authentication failed/);
  expect(existsSync(path.join(dir, 'postgres/postmaster.pid'))).toBe(false);

  writeFileSync(file, settings);
  const third = run();
  await until(() => existsSync(path.join(dir, 'postgres/postmaster.pid')), third.output);
  third.child.kill('SIGTERM');
  expect(await third.exited, third.output()).toBe(0);
  expect(existsSync(path.join(dir, 'postgres/postmaster.pid'))).toBe(false);
});

it('starts over with --reset, once that is confirmed', async () => {
  const topology = topologyOf(String(env.AMQP_NAMESPACE));
  const first = await runUntilServing();
  await call('POST', '/v1/accounts', { id: 'alice' });
  await useChannel((channel) => channel.publish(topology.ledgerExchange, '', Buffer.from('of the old history')));
  await until(
    () => useChannel(async (channel) => (await channel.checkQueue(topology.deadLetters)).messageCount === 1),
    first.output,
  );
  first.child.kill('SIGKILL'); // its PostgreSQL continues
  await first.exited;

  const unasked = run({}, '--reset');
  expect(await unasked.exited).toBe(1);
  expect(unasked.output()).toContain('Nothing was changed. To do it: npm start -- --reset --yes');
  expect(isAlive(first.postmaster)).toBe(true);
  const given = run({ DATABASE_URL: inject('postgresUrl') }, '--reset', '--yes');
  expect(await given.exited).toBe(1);
  expect(given.output()).toContain('DATABASE_URL names your own database');

  const second = await runUntilServing(run({}, '--reset', '--yes'));
  expect(second.output()).toContain('Reset: the data of earlier runs was deleted');
  expect(await call('GET', '/v1/accounts/alice')).toMatchObject({ code: 'account_not_found' });
  const { messageCount } = await useChannel((channel) => channel.checkQueue(topology.deadLetters));
  expect(messageCount).toBe(0);
  second.child.kill('SIGTERM');
  expect(await second.exited, second.output()).toBe(0);
});

it.each([
  ['\n', 'Nothing was changed'],
  ['n\n', 'Nothing was changed'],
  ['\x04', 'Nothing was changed'], // Ctrl-D
  ['\x03', 'Stopping.'], // Ctrl-C
  ['y\n', 'Reset: the data of earlier runs was deleted'],
])('asks at a terminal before it starts over: %j', async (keys, sentence) => {
  const command = `${process.execPath} ${MAIN} --reset`;
  const child = spawn('script', ['-qec', command, '/dev/null'], { env });
  const { output, exited } = followOpen(child);
  await until(() => output().includes('Start over? [y/N]'), output);
  child.stdin.write(keys);
  await until(() => output().includes(sentence), output);
  if (keys === 'y\n') child.stdin.write('\x03');
  await exited;
  child.stdin.end();
  expect(existsSync(path.join(dir, 'postgres/postmaster.pid'))).toBe(false);
});

const withoutServers = () => ({ ...env, AMQP_URL: '' });

it('is named by commands when it does not run', async () => {
  for (const [command, ...args] of [['verify'], ['keys', 'list'], ['dead-letters', 'list'], ['subscribers']]) {
    const file = path.join(ROOT, 'src/cli', `${command}.ts`);
    const { status, stderr } = spawnSync(process.execPath, [file, ...args], {
      env: withoutServers(),
      encoding: 'utf8',
    });
    expect({ command, status, stderr }).toEqual({
      ...{ command, status: 1 },
      stderr: expect.stringMatching(/^Nothing is running here: run npm start, or set (DATABASE|AMQP)_URL to .*\n$/),
    });
  }
});

it.each([
  ['PORT', 'abc', /PORT must be a number/],
  [
    'HOST',
    'x86_64-conda-linux-gnu',
    /HOST is "x86_64-conda-linux-gnu", .* conda sets it .*HOST=127\.0\.0\.1 npm start/,
  ],
  ['HOST', '192.0.2.1', /HOST is "192\.0\.2\.1", which is not an address of this machine\./],
  ['HOST', '[::1]', /HOST is "\[::1\]", which is not an address/],
  ['LOG_LEVEL', 'verbose', /LOG_LEVEL must be one of/],
  ['AMQP_URL', 'amqp://host:99999', /AMQP_URL is not a correct URL/],
  ['AMQP_URL', 'nonsense', /AMQP_URL must be an AMQP URL/],
  ['DATABASE_URL', 'postgres://host:99999', /DATABASE_URL is not a correct URL/],
  ['DATA_DIR', '/proc/nowhere', /Cannot write to \/proc\/nowhere .*: change its permissions, or set DATA_DIR/],
  ['PORT', 'taken', /Port \d+ on 127\.0\.0\.1 is already in use by another program: .*PORT=\d+ npm start/],
  [
    'DATABASE_URL',
    'postgresql://nobody:x@127.0.0.1:1/x',
    /127\.0\.0\.1:1 \(DATABASE_URL\) cannot be used: .*ECONNREFUSED/,
  ],
  ['DATABASE_URL', 'postgresql://one:5432,two:5432/x', /DATABASE_URL names several hosts: .*HAProxy/],
  ['AMQP_URL', 'amqp://127.0.0.1:1', /127\.0\.0\.1:1 \(AMQP_URL\) does not answer: .*ECONNREFUSED/],
  ['AMQP_NAMESPACE', 'a b', /AMQP_NAMESPACE must be/],
  ['DATA_DIR', `${MAIN}/folder`, /a file is in its way: set DATA_DIR/],
])('refuses %s=%s with a sentence and leaves nothing running', async (name, value, sentence) => {
  const given = value === 'taken' ? new URL(inject('postgresUrl')).port : value;
  const { exited, output } = run({ [name]: given });
  expect(await exited).toBe(1);
  expect(output()).toMatch(sentence);
  expect(output()).not.toMatch(/^ +at /m);
  expect(readRuntime(dir)).toBeUndefined();
});
