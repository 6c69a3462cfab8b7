// The client as it is published: built, installed beside amqplib and nothing else, used by JavaScript on Node 20 where the
// machine has it, and by strict TypeScript. Its subscriber dies in the middle of its work, and nothing is missed.
import { execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  cleanUp,
  createBroker,
  createDatabase,
  insertAccounts,
  onCleanUp,
  send,
  startApiHere,
  until,
} from '../harness.ts';

const run = promisify(execFile);
const pathOf = (place: string) => fileURLToPath(new URL(`../../${place}`, import.meta.url));
const programs = pathOf('node_modules/.bin');

/** The machine's own Node, which may be older than the one that runs this: the client is for Node 20 and newer. */
const node = (process.env.PATH ?? '')
  .split(path.delimiter)
  .map((folder) => path.join(folder, 'node'))
  .find((file) => !file.startsWith(pathOf('node_modules')) && versionOf(file) === 20);
if (!node) console.warn('SKIPPED: no Node 20 on the PATH, so the built client is run by Node 24 only');
const program = node ?? process.execPath;

function versionOf(file: string): number {
  return Number(/^v(\d+)/.exec(spawnSync(file, ['--version'], { encoding: 'utf8' }).stdout ?? '')?.[1]);
}

/** Its database is a file, written with the effect: who dies in a handler has not written it. */
const SUBSCRIBER = `
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createClient } from 'highload-balance/client';
import { subscribe } from 'highload-balance/client/events';

const [api, url, namespace, store, dieAt, last] = process.argv.slice(2);
const effects = () => (existsSync(store) ? JSON.parse(readFileSync(store, 'utf8')) : []);
const subscription = subscribe({
  url,
  namespace,
  queue: namespace + '-package',
  lastVersion: () => effects().at(-1) ?? 0,
  handle({ data }) {
    if (data.version === Number(dieAt)) process.kill(process.pid, 'SIGKILL');
    writeFileSync(store + '.new', JSON.stringify([...effects(), data.version]));
    renameSync(store + '.new', store);
    if (data.version === Number(last)) setImmediate(() => subscription.stop()); // and then nothing holds the process
  },
  onGap: () => 'wait',
  onProblem: ({ message }) => console.error(message),
});
const timer = setInterval(async () => {
  if (!subscription.isConsuming) return;
  clearInterval(timer);
  const { id } = await createClient({ url: api }).readAccount('package');
  console.log(process.version, 'consumes', id);
}, 20).unref();
`;

const TYPED = `
import { type Client, createClient } from 'highload-balance/client';
import { type BalanceEvent, type Gap, type Subscription, subscribe } from 'highload-balance/client/events';

const client: Client = createClient({ url: 'http://localhost:3000' });
const subscription: Subscription = subscribe({
  url: 'amqp://localhost',
  queue: 'typed',
  lastVersion: async (accountId: string) => (await client.readAccount(accountId)).version,
  async handle({ data, traceparent }: BalanceEvent, { attempt, replayed }) {
    const amount: number = data.amount * attempt;
    console.log(amount, traceparent?.length, replayed === true);
  },
  onGap: ({ firstMissing, lastMissing }: Gap) => (lastMissing > firstMissing ? 'wait' : 'skip'),
});
// @ts-expect-error a subscriber decides about gaps
subscribe({ url: 'amqp://localhost', lastVersion: () => 0, handle() {} });
await subscription.stop();
`;

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'highload-balance-client-'));
  onCleanUp(() => rm(folder, { recursive: true }));
  const installed = path.join(folder, 'node_modules', 'highload-balance');
  await mkdir(path.join(folder, 'node_modules', '@types'), { recursive: true });
  await run(path.join(programs, 'tsc'), ['--project', pathOf('src/client'), '--outDir', path.join(installed, 'dist')]);
  await cp(pathOf('src/client/package.json'), path.join(installed, 'package.json'));
  for (const name of ['amqplib', '@types/node']) {
    await symlink(pathOf(`node_modules/${name}`), path.join(folder, 'node_modules', name));
  }
});
afterAll(cleanUp);

it('is used by strict TypeScript without any other types than those of Node and amqplib', async () => {
  await writeFile(path.join(folder, 'typed.mts'), TYPED);
  const options = {
    strict: true,
    exactOptionalPropertyTypes: true,
    module: 'nodenext',
    target: 'es2023',
    types: ['node'],
  };
  const tsconfig = { compilerOptions: { ...options, noEmit: true, skipLibCheck: false }, files: ['typed.mts'] };
  await writeFile(path.join(folder, 'tsconfig.json'), JSON.stringify(tsconfig));
  const { stdout } = await run(path.join(programs, 'tsc'), ['--project', folder]).catch((error) => error);
  expect(stdout).toBe('');
});

it('misses nothing when it is killed while it handles an event', async () => {
  const database = await createDatabase();
  const broker = createBroker();
  await insertAccounts(database, 'package');
  const { url } = await startApiHere(database, broker);
  const channel = await (await broker.connect()).createChannel();
  onCleanUp(() => channel.deleteQueue(`${broker.namespace}-package`));
  const script = path.join(folder, 'subscriber.mjs');
  await writeFile(script, SUBSCRIBER);
  const store = path.join(folder, 'effects');
  const effects = async () => JSON.parse(await readFile(store, 'utf8'));

  function start(dieAt: number) {
    const child = spawn(program, [script, url, broker.url, broker.namespace, store, String(dieAt), '20'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout.on('data', (chunk) => {
      output += chunk;
    });
    onCleanUp(async () => child.kill('SIGKILL'));
    return { gone: once(child, 'exit'), output: () => output };
  }

  const first = start(7);
  await until('it consumes', () => first.output().includes('consumes package'));
  expect(first.output()).toMatch(node ? /^v20\./ : /^v24\./);
  const update = { accountId: 'package', amount: 1 };
  for (let count = 0; count < 20; count += 1) await send(url, 'POST', '/v1/balance-updates', update);
  expect(await first.gone).toEqual([null, 'SIGKILL']);
  expect(await effects()).toEqual([1, 2, 3, 4, 5, 6]);
  expect(await start(0).gone).toEqual([0, null]);
  expect(await effects()).toEqual(Array.from({ length: 20 }, (_, index) => index + 1));
  await until('all is acknowledged', async () => {
    return (await channel.checkQueue(`${broker.namespace}-package`)).messageCount === 0;
  });
});
