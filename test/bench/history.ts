// npm run bench:history: what a long history costs who reads it. One account with a million entries (`-- --entries N`, 10,000,000 at
// most), exported, paged through and looked into at moments spread over all of it, on a PostgreSQL and an API of its own.
// Prints a table; exit code 1 where a bound was missed.
import path from 'node:path';
import { commandLine, refuse, wholeOption } from '../../src/cli/command-line.ts';
import { freePort } from '../../src/local/free-port.ts';
import { CHANGE_COLUMN_NAMES } from '../../src/shared/change.ts';
import { HOT_ACCOUNT } from './accounts.ts';
import { createBounds } from './bounds.ts';
import { residentBytes } from './cpu.ts';
import { type BenchDatabase, createDatabase, createTemplate } from './database.ts';
import { interruptible } from './interrupt.ts';
import { percentile, short, whole } from './numbers.ts';
import { keeperOf, startProcess } from './processes.ts';
import { startPostgresOnly } from './servers.ts';

const MEGABYTE = 1024 * 1024;
const RESIDENT_BYTES_MAX = 300 * MEGABYTE;
/** Of a history of any length. */
const READING_P99_MS_MAX = 50;
const READINGS = 500;
const FILL_STEP = 500_000;
const RESIDENT_EVERY_MS = 50;

const ENTRIES_MIN = 1000;
const { entries } = commandLine(
  { entries: { type: 'string' } },
  `usage: npm run bench:history -- [options]

Measures what a long history costs its readers: one account, exported, paged through and looked into, on a PostgreSQL
and an API of its own. Prints a table; exit code 1 where a bound was missed. Half a minute with a million entries.

  --entries N      of the account (1000000; 10000000 at most)`,
);
const count = wholeOption('entries', entries, 1_000_000, 10_000_000);
if (count < ENTRIES_MIN) refuse(`--entries ${count}: it must be at least ${ENTRIES_MIN}.`);

// As if there had been one every 10 ms: a credit of 2, then a debit of 1, each with a reference.
const BEGAN_AT_MS = Date.parse('2026-01-01T00:00:00Z');
const EVERY_MS = 10;
const FILL = `
  INSERT INTO ledger (
    account_id, version, epoch, previous_epoch, type, asset, amount, held_change, balance, held, reference, actor, created_at
  )
  SELECT account_id, number, epoch, epoch, CASE WHEN number % 2 = 1 THEN 'balance.credited' ELSE 'balance.debited' END, asset,
    CASE WHEN number % 2 = 1 THEN 2 ELSE -1 END, 0, number / 2 + number % 2 * 2, 0,
    'order ' || number, 'shop', to_timestamp(($4::bigint + number * ${EVERY_MS}) / 1000.0)
  FROM account CROSS JOIN generate_series($2::integer, $3::integer) AS number
  WHERE account_id = $1`;

/** As at 10,000 changes a second: recorded, and not hashed yet, or still in the outbox. */
const UNHASHED = 10_000;
const IN_OUTBOX = 250_000;

async function fill({ client }: BenchDatabase): Promise<void> {
  for (let first = 1; first <= count; first += FILL_STEP) {
    await client.query(FILL, [HOT_ACCOUNT, first, Math.min(count, first + FILL_STEP - 1), BEGAN_AT_MS]);
    console.log(`${whole(Math.min(count, first + FILL_STEP - 1))} of ${whole(count)} entries are there`);
  }
  const balance = Math.floor(count / 2) + (count % 2) * 2;
  await client.query('UPDATE account SET balance = $2, version = $3 WHERE account_id = $1', [
    ...[HOT_ACCOUNT, balance, count],
  ]);
  await client.query(
    `INSERT INTO outbox (${CHANGE_COLUMN_NAMES})
     SELECT ${CHANGE_COLUMN_NAMES} FROM ledger WHERE account_id = $1 AND version > $2 ORDER BY version`,
    [HOT_ACCOUNT, count - IN_OUTBOX],
  );
  // One row stands for all: what reads histories looks for the last one.
  await client.query(`INSERT INTO ledger_chain VALUES ($1, 0, $2, sha256(''))`, [
    ...[HOT_ACCOUNT, Math.max(0, count - UNHASHED)],
  ]);
  await client.query('VACUUM ANALYZE ledger');
  await client.query('CHECKPOINT');
}

const { judge, report } = createBounds();
const servers = await startPostgresOnly();
const over = interruptible(() => servers.reaper.close());
try {
  await createTemplate(servers.postgres.url);
  const database = await createDatabase(servers.postgres.url, { extraAccounts: 0, ledgerRows: 0, activeHolds: 0 });
  await fill(database);
  const port = String(await freePort());
  const api = await startProcess(keeperOf(servers.reaper), {
    script: '../../src/api/main.ts',
    // Nothing connects to it: the relay is off, and nobody watches.
    env: {
      DATABASE_URL: database.url,
      AMQP_URL: 'amqp://nowhere',
      RELAY: 'off',
      AUTH: 'off',
      HOST: '127.0.0.1',
      PORT: port,
    },
    logFile: path.join(servers.folder, 'logs', 'api.log'),
  });
  const account = `http://127.0.0.1:${port}/v1/accounts/${HOT_ACCOUNT}`;
  await measureReadings(account);
  const before = residentBytes(api.pid) ?? 0;
  for (const format of ['jsonl', 'csv']) await measureExport(account, format, api.pid, before);
  await api.stop();
  await database.drop();
} finally {
  over();
  await servers.stop();
}
report();

async function measureExport(account: string, format: string, apiPid: number, residentBefore: number): Promise<void> {
  let resident = 0;
  const look = setInterval(() => {
    resident = Math.max(resident, residentBytes(apiPid) ?? 0);
  }, RESIDENT_EVERY_MS);
  const startedAtMs = performance.now();
  const { body } = await fetch(`${account}/entries/export?format=${format}`);
  let [bytes, lines] = [0, format === 'csv' ? -1 : 0]; // the head
  let last = '';
  for await (const chunk of body as ReadableStream<Uint8Array>) {
    bytes += chunk.length;
    for (let at = chunk.indexOf(10); at !== -1; at = chunk.indexOf(10, at + 1)) lines += 1;
    last = (last + Buffer.from(chunk.subarray(-500)).toString()).slice(-500);
  }
  clearInterval(look);
  const seconds = (performance.now() - startedAtMs) / 1000;
  judge(
    `export as ${format}`,
    `${whole(lines)} entries, ${whole(bytes / MEGABYTE)} MB, ${short(seconds)} s, ${whole(lines / seconds)}/s`,
    'all of them',
    lines === count + 1 && last.includes(`${HOT_ACCOUNT}:${count}:`), // and the opening
  );
  judge(
    `memory of the API meanwhile; before`,
    `${whole(resident / MEGABYTE)} MB; ${whole(residentBefore / MEGABYTE)} MB`,
    `≤ ${whole(RESIDENT_BYTES_MAX / MEGABYTE)} MB`,
    resident <= RESIDENT_BYTES_MAX,
  );
}

async function measureReadings(account: string): Promise<void> {
  const timeOf = (version: number) => new Date(BEGAN_AT_MS + version * EVERY_MS).toISOString();
  const readings: Record<string, (version: number) => string> = {
    'a page of 100 entries': (version) => `/entries?cursor=${version}`,
    '100 entries before a moment': (version) => `/entries?to=${timeOf(version)}`,
    'the balance at a version': (version) => `/balance?version=${version}`,
    'the balance at a moment': (version) => `/balance?at=${timeOf(version)}`,
  };
  for (const [what, pathOf] of Object.entries(readings)) {
    const tookMs: number[] = [];
    for (let reading = 0; reading < READINGS; reading += 1) {
      // Spread over all of it, in no order that a cache would like.
      const version = 1 + ((reading * 7_368_787) % count);
      const startedAtMs = performance.now();
      const response = await fetch(account + pathOf(version));
      await response.arrayBuffer();
      if (response.status !== 200) throw new Error(`${pathOf(version)} was answered ${response.status}`);
      tookMs.push(performance.now() - startedAtMs);
    }
    const p99 = percentile(tookMs, 99);
    judge(
      `${what}: p50, p99`,
      `${short(percentile(tookMs, 50))} ms, ${short(p99)} ms`,
      `p99 ≤ ${READING_P99_MS_MAX} ms`,
      p99 <= READING_P99_MS_MAX,
    );
  }
}
