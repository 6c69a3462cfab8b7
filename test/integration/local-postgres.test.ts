import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type PostgresOptions, type RunningPostgres, startPostgres } from '../../src/local/postgres.ts';
import { signal, waitForExit } from '../../src/local/process-end.ts';
import { type Reaper, startReaper } from '../support/reaper.ts';

let reaper: Reaper;
let dir: string;
beforeEach(() => {
  reaper = startReaper();
  dir = mkdtempSync(path.join(os.tmpdir(), 'highload-balance-test-'));
  for (const folder of [dir, `${dir}-shared`]) reaper.add({ folder });
});
afterEach(() => reaper.close());

// Mode 0700 as in root's home: as root, the server's account cannot enter it and everything goes to
// sharedDir.
const start = (options: Partial<PostgresOptions> = {}) =>
  startPostgres({ dir, sharedDir: `${dir}-shared`, onSpawn: (process) => reaper.add({ process }), ...options });

async function query(server: RunningPostgres, sql: string): Promise<Record<string, unknown> | undefined> {
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  try {
    return (await client.query(sql)).rows[0];
  } finally {
    await client.end();
  }
}

async function killHard(server: RunningPostgres): Promise<void> {
  signal(server.process, 'SIGKILL');
  expect(await waitForExit(server.process, 5_000)).toBe(true);
}

it('serves from a folder that only its owner can enter, with durable settings and UTF-8 sorted by code point', async () => {
  const server = await start({ database: 'balance' });
  if (process.getuid?.() === 0) expect(server.dataDir.startsWith(`${dir}-shared`)).toBe(true);
  const settings = `SELECT current_database() AS db, current_setting('fsync') AS fsync,
    current_setting('full_page_writes') AS pages, current_setting('server_encoding') AS encoding,
    (SELECT datlocprovider::text || ':' || datlocale FROM pg_database WHERE datname = 'balance') AS locale`;
  expect(await query(server, settings)).toEqual({
    db: 'balance',
    fsync: 'on',
    pages: 'on',
    encoding: 'UTF8',
    locale: 'b:C.UTF-8',
  });
  await server.stop();
  await server.stop();
});

it('asks for the password that was generated', async () => {
  const server = await start();
  await expect(query({ ...server, url: server.url.replace(/:[^:@]+@/, ':wrong@') }, 'SELECT')).rejects.toThrow(
    /password authentication failed/,
  );
  await server.stop();
});

it('continues with its data and on its port after SIGKILL of the server', async () => {
  const first = await start();
  await query(first, 'CREATE TABLE kept AS SELECT 42 AS answer');
  await killHard(first);
  const second = await start({ portFixed: true });
  expect(second).toMatchObject({ url: first.url, adopted: false });
  expect(await query(second, 'SELECT answer FROM kept')).toEqual({ answer: 42 });
  await second.stop();
});

it('adopts the server that an earlier run left running', async () => {
  const first = await start();
  const second = await start();
  expect(second).toMatchObject({ url: first.url, adopted: true, process: first.process });
  await second.stop();
  expect(await waitForExit(first.process, 0)).toBe(true);
});

it('is not misled by a process that got the number of a dead server', async () => {
  const first = await start();
  await first.stop();
  const pidFile = path.join(first.dataDir, 'postmaster.pid');
  writeFileSync(pidFile, `${process.pid}\n${first.dataDir}\n1\n${first.port}\n\n127.0.0.1\n0 0\nready\n`);
  const second = await start();
  expect(second.adopted).toBe(false);
  await second.stop();
});

it('takes the next port when the preferred one is taken', async () => {
  const taken = net.createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  const { port } = taken.address() as net.AddressInfo;
  const server = await start({ port });
  expect(server.port).toBeGreaterThan(port);
  await server.stop();
  await new Promise((resolve) => taken.close(resolve));
});

it('starts over where a crash left half of a new data folder', async () => {
  const first = await start();
  await first.stop();
  const half = `${first.dataDir}.new-12345678`;
  mkdirSync(half);
  writeFileSync(path.join(half, 'PG_VERSION'), '18\n');
  rmSync(first.dataDir, { recursive: true });
  const second = await start();
  expect(existsSync(half)).toBe(false);
  await second.stop();
});

it.each([
  ['17\n', /written by PostgreSQL 17, this is PostgreSQL 18/],
  [undefined, /is not a PostgreSQL data folder/],
])('refuses in one sentence a data folder with PG_VERSION %j', async (version, sentence) => {
  const server = await start();
  await server.stop();
  const file = path.join(server.dataDir, 'PG_VERSION');
  if (version === undefined) rmSync(file);
  else writeFileSync(file, version);
  await expect(start()).rejects.toThrow(sentence);
});
