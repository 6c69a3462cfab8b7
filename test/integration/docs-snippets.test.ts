// The TypeScript in README and docs compiles as strictly as this project, runs, and prints what the page says.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';
import {
  applyDirectly,
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  insertAccounts,
  onCleanUp,
  startApiHere,
  startWorkerHere,
  until,
} from '../harness.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const PAGES = ['README.md', 'docs/api.md', 'docs/client.md', 'docs/events.md', 'docs/operations.md'];

interface Snippet {
  page: string;
  code: string;
  /** Of the block without a language between it and the next snippet, where there is one. */
  output: string | undefined;
}

async function snippetsIn(page: string): Promise<Snippet[]> {
  const text = await readFile(path.join(ROOT, page), 'utf8');
  return [...text.matchAll(/^```ts\n(.*?)^```\n((?:(?!^```ts).)*)/gms)].map(([, code = '', behind = '']) => ({
    page,
    code,
    output: /^```\n(.*?)^```$/ms.exec(behind)?.[1],
  }));
}

const snippets = (await Promise.all(PAGES.map(snippetsIn))).flat();
const [updating, reading, subscribing] = snippets as [Snippet, Snippet, Snippet];

let database: Database;
let broker: Broker;
let url: string;

beforeEach(async () => {
  database = await createDatabase();
  broker = createBroker();
  ({ url } = await startApiHere(database, broker));
  await startWorkerHere(database, broker);
});
afterEach(cleanUp);

/** As written, but for where the servers are, and for the names on a broker that others use too. */
function start({ code }: Snippet) {
  const here = code
    .replaceAll('http://localhost:3000', url)
    .replaceAll('postgres://billing:secret@postgres/billing', database.url)
    .replaceAll('amqp://billing:secret@rabbitmq/', broker.url)
    .replace(`queue: 'billing'`, `queue: '${broker.namespace}-billing', namespace: '${broker.namespace}'`);
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-'], { cwd: ROOT });
  const ended = { out: '', err: '' };
  child.stdout.on('data', (chunk) => (ended.out += chunk));
  child.stderr.on('data', (chunk) => (ended.err += chunk));
  child.stdin.end(here);
  onCleanUp(async () => child.kill('SIGKILL'));
  return { child, ended, whenEnded: once(child, 'close').then(([code]) => ({ code, ...ended })) };
}

it('are those that are run below', () => {
  expect(snippets.map(({ page }) => page)).toEqual(['docs/client.md', 'docs/client.md', 'docs/client.md']);
});

it('compile', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'docs-snippets-'));
  onCleanUp(() => rm(folder, { recursive: true }));
  await mkdir(path.join(folder, 'node_modules'));
  for (const name of ['@types', 'pg', 'amqplib']) {
    await symlink(path.join(ROOT, 'node_modules', name), path.join(folder, 'node_modules', name));
  }
  await symlink(ROOT, path.join(folder, 'node_modules', 'highload-balance'));
  const extended = path.join(ROOT, 'tsconfig.json');
  const files = snippets.map((_, index) => `snippet-${index}.ts`);
  await writeFile(path.join(folder, 'package.json'), JSON.stringify({ type: 'module' }));
  await writeFile(path.join(folder, 'tsconfig.json'), JSON.stringify({ extends: extended, files, include: [] }));
  for (const [index, { code }] of snippets.entries()) await writeFile(path.join(folder, files[index] as string), code);
  const compiler = spawn(path.join(ROOT, 'node_modules/.bin/tsc'), [], { cwd: folder });
  let output = '';
  compiler.stdout.on('data', (chunk) => (output += chunk));
  const [code] = await once(compiler, 'close');
  expect({ code, output }).toEqual({ code: 0, output: '' });
});

it('update and read balances', async () => {
  expect(await start(updating).whenEnded).toEqual({ code: 0, out: updating.output, err: '' });
  await drained(database);
  expect(await start(reading).whenEnded).toEqual({ code: 0, out: '400 500\n100\n', err: '' });
});

it('subscribe, handle each event once, and end at SIGTERM', async () => {
  const first = start(subscribing);
  const channel = await (await broker.connect()).createChannel();
  const queue = `${broker.namespace}-billing`;
  onCleanUp(() => channel.deleteQueue(queue));
  const payments = async () => (await database.pool.query('SELECT * FROM payment ORDER BY amount')).rows;
  await until('the queue is there', async () => {
    const connection = await broker.connect();
    const probe = await connection.createChannel();
    probe.on('error', () => {});
    return (await probe.checkQueue(queue).catch(() => undefined))?.consumerCount === 1;
  });
  await insertAccounts(database, 'alice'); // now: of what was before, its queue has nothing
  await applyDirectly(database.pool, 'alice', 7);
  await until('it has handled it', async () => (await payments()).length === 1);
  first.child.kill('SIGTERM');
  expect(await first.whenEnded).toEqual({ code: 0, out: '', err: '' });
  await applyDirectly(database.pool, 'alice', 8); // while it is away
  const second = start(subscribing);
  await until('it has handled that too', async () => (await payments()).length === 2);
  expect(await payments()).toEqual([
    { event_id: expect.stringMatching(/^alice:1:/), amount: 7 },
    { event_id: expect.stringMatching(/^alice:2:/), amount: 8 },
  ]);
  second.child.kill('SIGTERM');
  expect(await second.whenEnded).toMatchObject({ code: 0 });
});
