// A running system under traffic, with a subscriber, and what every runbook has to leave.
import path from 'node:path';
import type pg from 'pg';
import { expect } from 'vitest';
import { startPostgres } from '../../src/local/postgres.ts';
import { pendingChanges, send, until, untilReady } from '../support/harness.ts';
import { openAccounts, type Sent, untilAnswered } from '../support/traffic.ts';
import { type Billing, startBilling } from './billing.ts';
import { type Server, startServer } from './postgres.ts';
import type { Shell } from './shell.ts';
import { createSystem, makePlace, type Place, type System, setUp } from './system.ts';

export const ACCOUNTS = Array.from({ length: 8 }, (_, number) => `account-${10 + number}`);

/** It handles hundreds of changes, one after the other. */
const AGREE_MS = 120_000;

export interface Arranged {
  place: Place;
  server: Server;
  system: System;
  /** Of the operator. */
  shell: Shell;
  billing: Billing;
}

/** @param settings of PostgreSQL. */
export async function arrange(settings: Record<string, string> = {}): Promise<Arranged> {
  const place = makePlace();
  const server = await startServer(place.reaper, place.folder, 'server', settings);
  const system = await createSystem(place, server);
  const shell = await system.openShell();
  await setUp(server, shell);
  await system.start();
  await untilReady(system.url);
  const billing = await startBilling(system, await startServer(place.reaper, place.folder, 'of-billing'));
  await openAccounts(system.url, ACCOUNTS);
  return { place, server, system, shell, billing };
}

/**
 * A server of the newest PostgreSQL that comes with the dependencies, without anything.
 * @returns the URL of the superuser, without a database.
 */
export async function startNewServer({ reaper, folder }: Place): Promise<string> {
  const { url, port } = await startPostgres({
    ...{ dir: path.join(folder, 'new'), sharedDir: folder, durable: false },
    onSpawn: (process) => reaper.add({ process }),
  });
  const superuser = new URL(url);
  return `postgres://postgres:${superuser.password}@127.0.0.1:${port}`;
}

/**
 * All of it is in the ledger and its hash chains, and the subscriber has handled all of it.
 * @param but an account that it does not handle.
 */
export async function settled(
  { system, billing }: Pick<Arranged, 'system' | 'billing'>,
  but?: string,
): Promise<pg.Pool> {
  const differences = async () =>
    (await billing.differencesTo(pool)).filter((row) => but === undefined || !row.includes(`"${but}"`));
  const pool = system.openDatabase();
  await until('the ledger is complete', async () => (await pendingChanges({ pool, url: '' })) === 0);
  await until('all entries have their hashes', async () => {
    const { rows } = await pool.query(`
      SELECT count(*) AS behind FROM account WHERE version IS DISTINCT FROM (
        SELECT max(last_version) FROM ledger_chain WHERE ledger_chain.account_id = account.account_id)`);
    return rows[0].behind === 0;
  });
  const isEqual = async () => (await differences()).length === 0;
  await until('the subscriber agrees with the ledger', isEqual, AGREE_MS).catch(async (error) => {
    const queues = await system.broker.control('list_queues', 'name', 'messages_ready', 'messages', 'consumers');
    const ready = JSON.stringify((await send(system.url, 'GET', '/readyz')).body);
    throw new Error(
      [error.message, ...(await differences()).slice(0, 20), 'It said:', billing.said(), queues, ready].join('\n'),
    );
  });
  return pool;
}

/** Which of the changes that were answered the ledger lacks, by event id. */
export async function missingIn(pool: pg.Pool, sent: readonly Sent[]): Promise<string[]> {
  const { rows } = await pool.query('SELECT event_id(account_id, version, epoch) AS id FROM ledger');
  const ids = new Set(rows.map(({ id }) => id));
  return sent.flatMap(({ eventIds }) => eventIds).filter((id) => !ids.has(id));
}

/** Clients send again what was lost: it takes effect once more. @returns ids of the new changes. */
export async function sendAgain(url: string, sent: readonly Sent[]): Promise<string[]> {
  const ids: string[] = [];
  for (const { answer, eventIds, ...request } of sent) {
    const again = await untilAnswered(() => url, request);
    expect([request, again.status]).toEqual([request, answer.status]);
    if (eventIds.length > 0) expect(again.body).not.toEqual(answer.body);
    ids.push(...eventIds);
  }
  return ids;
}

export async function expectVerified(shell: Shell): Promise<void> {
  expect(await shell.paste('operator verify')).toMatch(/\bverified\n$/);
}

/** The processes that run now have logged no error. */
export function expectNoErrors(system: System): void {
  const errors = system.processes().flatMap((process) => process.lines());
  expect(errors.filter(({ level }) => level === 'error' || level === 'fatal')).toEqual([]);
}
