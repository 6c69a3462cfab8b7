// The TypeScript in README and docs compiles as strictly as this project, runs, and prints what the page says.
import { spawn } from 'node:child_process';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { follow } from '../support/commands.ts';
import {
  applyDirectly,
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  createFolder,
  type Database,
  drained,
  insertAccounts,
  onCleanUp,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const OPERATING = ['docs/run.md', 'docs/secure.md', 'docs/observe.md', 'docs/recover.md'];
const PAGES = ['README.md', 'docs/api.md', 'docs/client.md', 'docs/events.md', ...OPERATING];

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
const [shown, updating, reading, subscribing] = snippets as [Snippet, Snippet, Snippet, Snippet];

/** What one of them writes. */
let csv: string;

let database: Database;
let broker: Broker;
let url: string;

beforeEach(async () => {
  csv = path.join(await createFolder(), 'carol.csv');
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
    .replaceAll('carol.csv', csv)
    .replaceAll('amqp://billing:secret@rabbitmq/', broker.url)
    .replace(`queue: 'billing'`, `queue: '${broker.namespace}-billing', namespace: '${broker.namespace}'`);
  const args = ['--conditions=highload-balance-source', '--input-type=module-typescript', '-'];
  const run = follow(spawn(process.execPath, args, { cwd: ROOT }));
  run.child.stdin.end(here);
  return run;
}

it('are those that are run below', () => {
  expect(snippets.map(({ page }) => page)).toEqual(['README.md', 'docs/client.md', 'docs/client.md', 'docs/client.md']);
});

it('compile', async () => {
  const folder = await createFolder();
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
  const compiler = follow(spawn(path.join(ROOT, 'node_modules/.bin/tsc'), [], { cwd: folder }));
  expect(await compiler.whenEnded).toMatchObject({ code: 0, out: '' });
});

it('show the client in the README', async () => {
  await insertAccounts(database, 'alice');
  await applyDirectly(database.pool, 'alice', 7);
  await drained(database);
  expect(await start(shown).whenEnded).toMatchObject({ code: 0, out: expect.stringMatching(/^257\n(2 250\n)?1 7\n$/) });
});

it('update and read balances', async () => {
  expect(await start(updating).whenEnded).toEqual({ code: 0, out: updating.output, err: '' });
  await drained(database);
  expect(await start(reading).whenEnded).toEqual({ code: 0, out: '400 500\n100\n', err: '' });
  expect(await readFile(csv, 'utf8')).toMatch(/^eventId,type,version.*\r\n(carol:\d+:\w+,.*\r\n){3}$/);
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
  await applyDirectly(database.pool, 'alice', 8); // while it is down
  const second = start(subscribing);
  await until('it has handled that too', async () => (await payments()).length === 2);
  expect(await payments()).toEqual([
    { account_id: 'alice', version: 1, amount: 7 },
    { account_id: 'alice', version: 2, amount: 8 },
  ]);
  second.child.kill('SIGTERM');
  expect(await second.whenEnded).toMatchObject({ code: 0 });
});
