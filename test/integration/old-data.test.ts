// npm start on data of an unreleased version: it asks, renames the folder and starts with an empty
// database; it never deletes.
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, expect, inject, it } from 'vitest';
import { freePort } from '../../src/local/free-port.ts';
import { start } from '../../src/local/local-system.ts';
import { startPostgres } from '../../src/local/postgres.ts';
import type { KnownProcess } from '../../src/shared/runtime.ts';
import { type Reaper, startReaper } from '../support/reaper.ts';

const OLD_SCHEMA = `
  CREATE TABLE schemaversion (version bigint PRIMARY KEY, name text, md5 text, run_at timestamptz);
  INSERT INTO schemaversion (version, name) VALUES (1, 'tables'), (2, 'ledger-append-only'), (3, 'apply-balance-updates');
  CREATE TABLE account (account_id text PRIMARY KEY, balance bigint);
  INSERT INTO account VALUES ('alice', 70);`;

let reaper: Reaper;
let parent: string;
let dir: string;
beforeEach(async () => {
  reaper = startReaper();
  parent = mkdtempSync(path.join(os.tmpdir(), 'highload-balance-test-'));
  chmodSync(parent, 0o755);
  reaper.add({ folder: parent });
  dir = path.join(parent, 'data');
  mkdirSync(dir);
  await withServer(dir, async (client) => {
    await client.query(OLD_SCHEMA);
  });
});
afterEach(() => reaper.close());

async function withServer<Result>(folder: string, work: (client: pg.Client) => Promise<Result>): Promise<Result> {
  const onSpawn = (process: KnownProcess) => reaper.add({ process });
  const server = await startPostgres({ dir: folder, database: 'balance', durable: false, onSpawn });
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
    await server.stop();
  }
}

/** Interrupted as soon as the schema is there; without that it ends with a sentence. */
async function startOnce(confirm?: (question: string) => Promise<boolean>): Promise<string[]> {
  const interrupted = new AbortController();
  const said: string[] = [];
  const say = (line: string) => {
    said.push(line);
    if (line.startsWith('Schema:')) interrupted.abort();
  };
  const env = { DATA_DIR: dir, PORT: String(await freePort()), AMQP_URL: inject('amqpUrl') };
  await start({ env, say, interrupted: interrupted.signal, hurry: AbortSignal.abort(), confirm });
  return said;
}

const balances = (folder: string) =>
  withServer(folder, async (client) => (await client.query('SELECT account_id, balance FROM account')).rows);

it('sets it aside when the person agrees, and starts with an empty database', async () => {
  const questions: string[] = [];
  const said = await startOnce(async (question) => {
    questions.push(question);
    return true;
  });
  expect(questions).toEqual([
    expect.stringMatching(
      /unreleased version .*\nSet it aside as data\.unreleased and start with an empty database\?$/,
    ),
  ]);
  expect(said).toContain(`The old data is in ${dir}.unreleased`);
  expect(readdirSync(parent).sort()).toEqual(['data', 'data.unreleased']);
  expect(await balances(`${dir}.unreleased`)).toEqual([{ account_id: 'alice', balance: '70' }]);
  expect(await balances(dir)).toEqual([]);
});

it.each([
  ['the person declines', async () => false],
  ['nobody is there to ask', undefined],
])('says how to do it by hand when %s, and changes nothing', async (_, confirm) => {
  mkdirSync(`${dir}.unreleased`); // of an earlier time: not overwritten
  await expect(startOnce(confirm)).rejects.toThrow(
    `Nothing was changed. To keep it and start with an empty database: mv ${dir} ${dir}.unreleased-2 && npm start`,
  );
  expect(existsSync(path.join(dir, 'lock'))).toBe(false);
  expect(readdirSync(parent).sort()).toEqual(['data', 'data.unreleased']);
  expect(await balances(dir)).toEqual([{ account_id: 'alice', balance: '70' }]);
});
