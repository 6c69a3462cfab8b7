import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import amqp from 'amqplib';
import pg from 'pg';
import { afterEach, beforeEach, expect, inject, it } from 'vitest';
import { freePort } from '../../src/local/free-port.ts';
import { isAlive, knownProcess, signal } from '../../src/local/process-end.ts';
import { type Runtime, readRuntime } from '../../src/local/runtime.ts';
import { type Topology, topologyOf } from '../../src/shared/topology.ts';
import { type Reaper, startReaper } from '../reaper.ts';

const MAIN = fileURLToPath(new URL('../../src/local/main.ts', import.meta.url));
const POLL_INTERVAL_MS = 50;

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

function run(overrides: NodeJS.ProcessEnv = {}): Run {
  const child = spawn(process.execPath, [MAIN], { env: { ...env, ...overrides }, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk));
  const known = knownProcess(child.pid ?? 0);
  if (known) reaper.add({ process: known });
  return { child, output: () => output, exited: once(child, 'close').then(([code]) => code as number | null) };
}

/** Runs until the screen is there; the reaper learns about every server and process behind it. */
async function runUntilServing(): Promise<Run & { runtime: Runtime }> {
  const started = run();
  await until(() => started.output().includes('Running at') || started.child.exitCode !== null, started.output);
  const runtime = readRuntime(dir);
  const postmaster = knownProcess(
    Number(readFileSync(path.join(dir, 'postgres/postmaster.pid'), 'utf8').split('\n')[0]),
  );
  if (postmaster) reaper.add({ process: postmaster });
  if (!runtime) throw new Error(`It does not run:\n${started.output()}`);
  for (const process of [runtime.processes.api, runtime.processes.worker]) if (process) reaper.add({ process });
  return { ...started, runtime };
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

// The broker may be the machine's own: nothing of ours stays on it.
async function deleteTopology({ eventsExchange, ledgerQueue, deadLetters }: Topology): Promise<void> {
  const connection = await amqp.connect(inject('amqpUrl'), { timeout: 10_000 });
  const channel = await connection.createChannel();
  for (const queue of [ledgerQueue, deadLetters]) await channel.deleteQueue(queue);
  for (const exchange of [eventsExchange, deadLetters]) await channel.deleteExchange(exchange);
  await connection.close();
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

const entriesOf = async (id: string) => (await call('GET', `/v1/accounts/${id}/entries`)).entries;

it('serves, records, stops on Ctrl-C, and the next start continues with the same balances', async () => {
  const first = await runUntilServing();
  expect(first.output()).toContain('{"accountId":"demo","amount":100,"balance":100,"version":1,');
  expect(first.output()).toContain('API keys     off');
  expect(readFileSync(path.join(dir, 'api.log'), 'utf8')).toContain('AUTH is off: whoever reaches this address');

  const second = run();
  expect(await second.exited).toBe(1);
  expect(second.output()).toContain(
    `It already runs in this folder (process ${first.child.pid}), at http://127.0.0.1:`,
  );

  await call('POST', '/v1/accounts', { id: 'alice' });
  expect(await call('POST', '/v1/balance-updates', { accountId: 'alice', amount: 70 })).toMatchObject({ balance: 70 });
  await until(async () => (await entriesOf('alice')).length === 2, first.output);

  expect(await databaseUsers(first.runtime)).toEqual({ api: ['balance_api_login'], worker: ['balance_worker_login'] });

  first.child.kill('SIGINT');
  first.child.kill('SIGINT'); // npm repeats what the terminal has sent already: still one Ctrl-C
  expect(await first.exited, first.output()).toBe(0);
  expect(first.output()).not.toContain('Hurrying');
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

it.each([
  ['PORT', 'abc', /PORT has to be a number/],
  ['PORT', 'taken', /Port \d+ on 127\.0\.0\.1 cannot be had, another program uses it: .*PORT=\d+ npm start/],
  [
    'DATABASE_URL',
    'postgresql://nobody:x@127.0.0.1:1/x',
    /127\.0\.0\.1:1 \(DATABASE_URL\) cannot be used: .*ECONNREFUSED/,
  ],
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
