// The package as npm packs it, in empty projects: JavaScript on this Node and, where the machine
// has one, on Node 20, by import and by require; strict TypeScript; and the command, with what npm
// installs for it and nothing else. A subscriber that dies in the middle of its work misses
// nothing.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createClient } from '../../src/client/client.ts';
import type { Handled } from '../../src/client/events.ts';
import {
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  createFolder,
  environmentOf,
  insertAccounts,
  onCleanUp,
  send,
  startApiHere,
  until,
} from '../support/harness.ts';
import { needing } from '../support/needing.ts';
import {
  createProject,
  type Packed,
  packInto,
  productionPackages,
  run,
  unexportedTypes,
} from '../support/packed-package.ts';

const pathOf = (place: string) => fileURLToPath(new URL(`../../${place}`, import.meta.url));

/**
 * The machine's own Node, which may be older than the one that runs this: the client is for Node
 * 20.19 and newer.
 */
const node20 = (process.env.PATH ?? '')
  .split(path.delimiter)
  .concat('/usr/bin', '/usr/local/bin')
  .map((folder) => path.join(folder, 'node'))
  .find((file) => !file.startsWith(pathOf('node_modules')) && /^v20\.(19|[2-9]\d)\./.test(versionOf(file)));
const NODE_20 = 'Node 20.19 or newer 20 on the PATH';
const NODES: [string, string | undefined][] = [
  ['Node 24', process.execPath],
  ['Node 20', node20],
];

function versionOf(file: string): string {
  return spawnSync(file, ['--version'], { encoding: 'utf8' }).stdout ?? '';
}

/** Its database is a file, written with the effect: who dies in a handler has not written it. */
const SUBSCRIBER = `
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createClient } from 'highload-balance';
import { subscribe } from 'highload-balance/client/events';

const [api, url, namespace, store, dieAt, last] = process.argv.slice(2);
const effects = () => (existsSync(store) ? JSON.parse(readFileSync(store, 'utf8')) : []);
const subscription = subscribe({
  url,
  namespace,
  queue: namespace + '-package',
  client: createClient({ url: api }),
  lastHandled: (accountId) => (accountId === 'package' ? effects().at(-1) : undefined),
  handle({ data }, { handled }) {
    if (data.accountId !== 'package') return;
    if (data.version === Number(dieAt)) process.kill(process.pid, 'SIGKILL');
    writeFileSync(store + '.new', JSON.stringify([...effects(), handled]));
    renameSync(store + '.new', store);
    if (data.version === Number(last)) setImmediate(() => subscription.stop()); // and then nothing holds the process
  },
  onGap: () => 'wait',
  onRewind() {},
  onProblem: ({ message }) => console.error(message),
});
const timer = setInterval(async () => {
  if (!subscription.isConsuming) return;
  clearInterval(timer);
  const { id } = await createClient({ url: api }).readAccount('ready');
  console.log(process.version, 'consumes', id);
}, 20).unref();
`;

const TYPED = `
import { type Client, createClient } from 'highload-balance';
import { type BalanceEvent, type Gap, type Handled, type Subscription, subscribe } from 'highload-balance/client/events';

const client: Client = createClient({ url: 'http://localhost:3000' });
const stored = new Map<string, Handled>();
const subscription: Subscription = subscribe({
  url: 'amqp://localhost',
  queue: 'typed',
  client,
  lastHandled: (accountId: string): Handled | undefined => stored.get(accountId),
  async handle({ data, traceparent }: BalanceEvent, { attempt, replayed, handled }) {
    stored.set(data.accountId, handled);
    const amount: number = data.amount * attempt;
    console.log(amount, traceparent?.length, replayed === true);
  },
  onGap: ({ firstMissing, lastMissing }: Gap) => (lastMissing > firstMissing ? 'wait' : 'skip'),
  onRewind: ({ accountId, shared }) => void (shared ? stored.set(accountId, shared) : stored.delete(accountId)),
});
// @ts-expect-error a subscriber decides about gaps
subscribe({ url: 'amqp://localhost', client, handle() {}, onRewind() {} });
// @ts-expect-error and about histories that were cut
subscribe({ url: 'amqp://localhost', client, handle() {}, onGap: () => 'wait' });
for (const { error } of await client.updateBalances([{ accountId: 'a', amount: 1 }], { atomic: true }).then((results) =>
  results.filter((result) => !result.ok),
)) console.log(error.code);
// @ts-expect-error there is no such option
client.readAccount('a', { timeoutMs: 1 });
await subscription.stop();
`;

const USE = `
const client = createClient({ url: process.argv[2] });
client.readAccount('ready').then(async ({ id }) => {
  const { body } = await client.exportEntries(id, { format: 'csv' });
  let bytes = 0;
  for await (const piece of body) bytes += piece.length;
  const isSame = again.createClient === createClient && typeof events.subscribe === 'function';
  const refused = await client.updateBalance({ accountId: id, amount: -1 }).catch((error) => error);
  console.log(id, bytes > 0, isSame, refused instanceof BalanceError && refused.code, version);
});
`;
const IMPORTED = `
import { BalanceError, createClient } from 'highload-balance';
import * as again from 'highload-balance/client';
import * as events from 'highload-balance/client/events';
import { createRequire } from 'node:module';
const { version } = createRequire(import.meta.url)('highload-balance/package.json');
${USE}`;
const REQUIRED = `
const { BalanceError, createClient } = require('highload-balance');
const again = require('highload-balance/client');
const events = require('highload-balance/client/events');
const { version } = require('highload-balance/package.json');
${USE}`;

const TYPED_REQUIRE = `
import balance = require('highload-balance');
import events = require('highload-balance/client/events');

const client: balance.Client = balance.createClient({ url: 'http://localhost:3000' });
const reader: events.EntriesReader = client;
export async function spent(id: string): Promise<number> {
  let sum = 0;
  for await (const entry of client.entries(id, { direction: 'debit' })) sum -= entry.amount;
  // @ts-expect-error filters are not options
  client.entries(id, {}, { direction: 'debit' });
  return sum + (await reader.readEntries(id, { limit: 1 }, { signal: AbortSignal.timeout(1), deadlineMs: 1 })).version;
}
`;

let folder: string;
let packed: Packed;
let broker: Broker;
let url: string;

beforeAll(async () => {
  folder = await createFolder();
  packed = await packInto(folder);
  const database = await createDatabase();
  broker = createBroker();
  await insertAccounts(database, 'ready');
  ({ url } = await startApiHere(database, broker));
});
afterAll(cleanUp);

const projectOf = (name: string, type: 'module' | 'commonjs', others: readonly string[]) =>
  createProject(path.join(folder, name), type, packed, others);

it('holds what is run and read, and is small', () => {
  const other = packed.files.filter(
    (file) => !/^(dist|migrations|docs\/high-availability)\/|^docs\/[a-z-]+\.md$/.test(file),
  );
  expect(other.sort()).toEqual([
    ...['LICENSE', 'README.md', 'package.json', 'src/cli/highload-balance.mjs'],
    ...['src/shared/node-options.mjs', 'src/shared/npm-gone.mjs'],
  ]);
  const types = new Set(packed.files.map((file) => /(\.d)?\.\w+$/.exec(file)?.[0] ?? ''));
  expect([...types].sort()).toEqual([
    ...['', '.cfg', '.css', '.d.ts', '.env', '.html', '.ini', '.js', '.json', '.md', '.mjs', '.sql', '.svg', '.yml'],
  ]);
  expect(packed.bytes).toBeLessThan(420_000);
});

describe.each(NODES)('the client on %s', (name, program) => {
  const onNode = needing(NODE_20, program !== undefined);
  onNode.it('is imported in a project of ECMAScript modules, and required in one of CommonJS', async () => {
    const { version } = JSON.parse(await readFile(pathOf('package.json'), 'utf8'));
    for (const [type, script] of [
      ['module', IMPORTED],
      ['commonjs', REQUIRED],
    ] as const) {
      const project = await projectOf(`${type} of ${name}`, type, ['amqplib']);
      await writeFile(path.join(project, 'use.js'), script);
      const { stdout, stderr } = await run(program as string, ['use.js', url], { cwd: project });
      expect({ stdout, stderr }).toEqual({ stdout: `ready true true insufficient_funds ${version}\n`, stderr: '' });
    }
  });

  onNode.it('needs amqplib for events alone', async () => {
    const project = await projectOf(`bare of ${name}`, 'module', []);
    const imported = (entry: string) =>
      run(program as string, ['--input-type=module', '-e', `await import('${entry}')`], { cwd: project });
    await imported('highload-balance');
    await expect(imported('highload-balance/client/events')).rejects.toThrow(/Cannot find package 'amqplib'/);
  });
});

describe('the types', () => {
  it.each([
    ['nodenext', 'nodenext', ['typed.mts', 'required.cts']],
    ['esnext', 'bundler', ['typed.mts']],
  ])(
    'are those of strict TypeScript, with the module %s resolved as by %s',
    async (module, moduleResolution, files) => {
      const project = await projectOf(`typed-${moduleResolution}`, 'module', ['amqplib', '@types/node']);
      await writeFile(path.join(project, 'typed.mts'), TYPED);
      await writeFile(path.join(project, 'required.cts'), TYPED_REQUIRE);
      const options = { strict: true, exactOptionalPropertyTypes: true, target: 'es2023', types: ['node'] };
      const compilerOptions = { ...options, module, moduleResolution, noEmit: true, skipLibCheck: false };
      await writeFile(path.join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, files }));
      const { stdout } = await run(pathOf('node_modules/.bin/tsc'), ['-p', project]).catch((error) => error);
      expect(stdout).toBe('');
    },
  );

  it.each(['client/client.d.ts', 'client/events.d.ts'])('that %s names are all exported by it', async (entry) => {
    expect(await unexportedTypes(packed, entry)).toEqual([]);
  });
});

describe('the command', () => {
  const bin = (project: string) => path.join(project, 'node_modules/highload-balance/src/cli/highload-balance.mjs');

  it('runs the service from what was built, with the dependencies of users alone', async () => {
    const project = await projectOf('service', 'commonjs', await productionPackages());
    const database = await createDatabase(); // whose relay is its own
    const env = { PATH: process.env.PATH, ...environmentOf(database, createBroker()) };
    const command = (name: string) => run(process.execPath, [bin(project), name], { cwd: project, env });
    expect((await command('migrate')).stdout).toContain('nothing to do');
    const children = ['api', 'worker'].map((name) => {
      const child = spawn(process.execPath, [bin(project), name], { cwd: project, env });
      onCleanUp(async () => child.kill('SIGTERM'));
      let output = '';
      for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
      return { gone: once(child, 'exit'), stop: () => child.kill('SIGTERM'), output: () => output };
    });
    const [api] = children;
    const port = () => /"port":(\d+)/.exec(api?.output() ?? '')?.[1];
    await until('the API listens', () => port() !== undefined);
    const here = `http://127.0.0.1:${port()}`;
    await insertAccounts(database, 'served');
    const update = { accountId: 'served', amount: 5 };
    expect((await send(here, 'POST', '/v1/balance-updates', update)).body).toMatchObject({ balance: 5 });
    const entries = async () => (await send(here, 'GET', '/v1/accounts/served/entries')).body.ledgerVersion;
    await until('the worker has recorded it', async () => (await entries()) === 1);
    for (const page of ['/docs', '/docs/start.js', '/openapi.json', '/console', '/console/files/live.js']) {
      expect((await fetch(here + page)).status, page).toBe(200);
    }
    expect((await command('verify')).stdout).toMatch(/^verified$/m);
    for (const child of children) child.stop();
    for (const child of children) expect(await child.gone, child.output()).toEqual([0, null]);
  });

  needing(NODE_20, node20 !== undefined).it('says which Node it needs', async () => {
    const project = await projectOf('old', 'commonjs', []);
    expect((await run(node20 as string, [bin(project), '--help'])).stdout).toContain('highload-balance COMMAND');
    const failed = await run(node20 as string, [bin(project), 'verify']).catch((error) => error);
    expect(failed).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('run npm install node@24 in your project'),
    });
  });
});

it('misses nothing when it is killed while it handles an event', async () => {
  const project = await projectOf('subscriber', 'module', ['amqplib']);
  const channel = await (await broker.connect()).createChannel();
  onCleanUp(() => channel.deleteQueue(`${broker.namespace}-package`));
  const script = path.join(project, 'subscriber.mjs');
  await writeFile(script, SUBSCRIBER);
  const store = path.join(project, 'effects');
  const effects = async () => JSON.parse(await readFile(store, 'utf8')).map(({ version }: Handled) => version);

  function start(dieAt: number) {
    const child = spawn(
      node20 ?? process.execPath,
      [script, url, broker.url, broker.namespace, store, String(dieAt), '20'],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    let output = '';
    child.stdout.on('data', (chunk) => {
      output += chunk;
    });
    onCleanUp(async () => child.kill('SIGKILL'));
    return { gone: once(child, 'exit'), output: () => output };
  }

  const first = start(7);
  await until('it consumes', () => first.output().includes('consumes ready'));
  expect(first.output()).toMatch(node20 ? /^v20\./ : /^v24\./);
  await createClient({ url }).createAccount({ id: 'package' }); // now: its queue has nothing of what was before
  const update = { accountId: 'package', amount: 1 };
  for (let count = 0; count < 20; count += 1) await send(url, 'POST', '/v1/balance-updates', update);
  expect(await first.gone).toEqual([null, 'SIGKILL']);
  expect(await effects()).toEqual([0, 1, 2, 3, 4, 5, 6]);
  expect(await start(0).gone).toEqual([0, null]);
  expect(await effects()).toEqual(Array.from({ length: 21 }, (_, version) => version));
  await until('all is acknowledged', async () => {
    return (await channel.checkQueue(`${broker.namespace}-package`)).messageCount === 0;
  });
});
