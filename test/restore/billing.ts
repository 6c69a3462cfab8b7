// The subscriber of docs/client.md as it is shown there, with a database of its own, which no
// runbook loses.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type pg from 'pg';
import { openClient, openPool } from '../../src/shared/database.ts';
import { follow, type Run } from '../support/commands.ts';
import { onCleanUp, until } from '../support/harness.ts';
import type { Server } from './postgres.ts';
import { PASSWORD, type System } from './system.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const QUEUE = 'billing';
/** It lasts as long as its test. */
const RUN_MS_MAX = 900_000;

/** What it did, and how far it is. */
const DONE = `
  SELECT account_id, version, amount FROM payment
  UNION ALL SELECT account_id, (handled->>'version')::bigint, NULL FROM seen WHERE handled->'version' >= '0'`;
const DUE = `
  SELECT account_id, version, amount FROM ledger WHERE amount <> 0
  UNION ALL SELECT account_id, version, NULL FROM account`;

export interface Billing {
  url: string;
  /** What it has said: rewinds and gaps. */
  said(): string;
  /** Where it has not done what the ledger of this database holds, or anything else. */
  differencesTo(database: pg.Pool): Promise<string[]>;
  /** From here on it fails to handle changes of this account, and has their events in hand. */
  refuse(accountId: string): Promise<void>;
  /** Until here. */
  refuseNothing(): Promise<void>;
  stop(): Promise<void>;
  /** Again; consuming when this returns. */
  start(): Promise<void>;
  /** It finds a new broker by itself, and the exchange once the API has declared it. */
  untilConsuming(): Promise<void>;
}

/** Consuming when this returns. */
export async function startBilling(system: System, server: Server): Promise<Billing> {
  const url = `postgres://billing:${PASSWORD}@${server.address}/billing`;
  const admin = await openClient(`${server.url}/postgres`, 'test');
  await admin.query(`CREATE ROLE billing LOGIN PASSWORD '${PASSWORD}'`);
  await admin.query('CREATE DATABASE billing OWNER billing');
  await admin.end();
  const runs: Run[] = [];
  const untilConsuming = () =>
    until('the subscriber consumes', async () =>
      /^billing\t[1-9]/m.test(await system.broker.control('--silent', 'list_queues', 'name', 'consumers')),
    );
  const start = async () => {
    runs.push(startExample(system, url));
    await untilConsuming();
  };
  await start();
  const own = openPool(url, 'test', 2, { access: 'any server' });
  onCleanUp(() => own.end());
  return {
    url,
    said: () => runs.map(({ output: { out, err } }) => out + err).join(''),
    start,
    untilConsuming,
    async differencesTo(database) {
      const done = await own.query(DONE);
      const due = await database.query(DUE);
      const [mine, its] = [done.rows, due.rows].map((rows) => rows.map((row) => JSON.stringify(row))) as [
        string[],
        string[],
      ];
      const [has, lacks] = [new Set(mine), new Set(its)];
      return [
        ...mine.filter((row) => !lacks.has(row)).map((row) => `too much: ${row}`),
        ...its.filter((row) => !has.has(row)).map((row) => `too little: ${row}`),
      ];
    },
    async refuse(accountId) {
      await own.query(`ALTER TABLE payment ADD CONSTRAINT refused CHECK (account_id <> '${accountId}') NOT VALID`);
    },
    async refuseNothing() {
      await own.query('ALTER TABLE payment DROP CONSTRAINT refused');
    },
    async stop() {
      const run = runs.at(-1) as Run;
      run.child.kill('SIGTERM');
      await run.whenEnded;
    },
  };
}

/** As written, but for where the servers are. */
function startExample({ url, amqpUrl }: System, databaseUrl: string): Run {
  const page = readFileSync(new URL('../../docs/client.md', import.meta.url), 'utf8');
  const snippets = [...page.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code = '']) => code);
  const code = snippets
    .find((snippet) => snippet.includes('subscribe({'))
    ?.replaceAll('http://localhost:3000', url)
    .replaceAll('postgres://billing:secret@postgres/billing', databaseUrl)
    .replaceAll('amqp://billing:secret@rabbitmq/', amqpUrl(QUEUE));
  const args = ['--conditions=highload-balance-source', '--input-type=module-typescript', '-'];
  const run = follow(spawn(process.execPath, args, { cwd: ROOT }), RUN_MS_MAX);
  run.child.stdin.end(code);
  return run;
}
