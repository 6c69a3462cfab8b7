// The runbooks for a loss: of the newest changes, of RabbitMQ, of everything but a backup. What is
// lost is named, nothing else is, and the subscriber agrees with the ledger in the end.
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, expect, it } from 'vitest';
import { cleanUp, pendingChanges, until } from '../support/harness.ts';
import { expectSameAnswers, openAccounts, type Sent, startTraffic } from '../support/traffic.ts';
import {
  ACCOUNTS,
  type Arranged,
  arrange,
  expectNoErrors,
  expectVerified,
  missingIn,
  sendAgain,
  settled,
} from './arrange.ts';
import { startServer } from './postgres.ts';
import { openRunbook } from './runbook.ts';
import { BROKER_VALUES, PASSWORD } from './system.ts';

afterEach(cleanUp);

/** Those that change after the moment that is returned to; the others stay as they were then. */
const CHANGED = ACCOUNTS.slice(0, 5);
const LATE = 'late';
/** Of a client that nobody knows after the restore. */
const NEW_KEY = 'owner keys create newcomer --scopes read';
const KEY_IS_LOST = /^< .*\bnewcomer\b/m;
/** One that the subscriber fails to handle for a while. */
const STUCK = ACCOUNTS[7] as string;
/** Names of base backups have whole seconds. */
const SECOND_MS = 1100;

async function sendSome(arranged: Arranged, ids: readonly string[], isLost = false): Promise<readonly Sent[]> {
  const traffic = startTraffic(() => arranged.system.url, ids, 4, isLost);
  await traffic.more('for a while');
  await traffic.end();
  expect(traffic.refused).toEqual([]);
  return traffic.done;
}

/** By the clock of the database. */
async function now({ system }: Arranged): Promise<Date> {
  return (await system.openDatabase().query('SELECT clock_timestamp() AS now')).rows[0].now;
}

/** So that the keys of what was sent so far are in the older of the two partitions. */
async function rotateKeys({ system }: Arranged): Promise<void> {
  await system.openDatabase().query(`SELECT expire_idempotency_keys('0')`);
}

/** The database that was restored is from days ago. */
async function age({ system }: Arranged): Promise<void> {
  await system.openDatabase().query(`UPDATE idempotency_rotation SET since = since - interval '3 days'`);
}

/** After the database has lost `lost`, the service runs again: the subscriber is healed, and clients send it again. */
async function heal(arranged: Arranged, kept: readonly Sent[], lost: readonly Sent[], since: Date): Promise<void> {
  const { system, shell, billing } = arranged;
  const lostIds = lost.flatMap(({ eventIds }) => eventIds);
  const pool = system.openDatabase();
  const { rows } = await pool.query(`SELECT expire_idempotency_keys('1 day') AS expired`);
  expect(rows).toEqual([{ expired: false }]);
  expect(await missingIn(pool, kept)).toEqual([]);
  expect(new Set(await missingIn(pool, lost))).toEqual(new Set(lostIds));
  await billing.untilConsuming();
  // Some accounts change before the subscriber is healed: it notices by itself. The others have
  // nothing but what was lost.
  const [first, rest] = [lost.slice(0, 8), lost.slice(8)];
  await sendAgain(system.url, first);
  await until('the subscriber has noticed', () => billing.said().includes('the database lost versions'));

  const values = { BILLING: billing.url, QUEUE: 'billing', SINCE: since.toISOString() };
  const runbook = openRunbook(system, shell, 'Heal a subscriber', values);
  // Clients send meanwhile, also to accounts of which the subscriber lacks versions.
  const traffic = startTraffic(() => system.url, ACCOUNTS, 1);
  await traffic.more('before the subscriber is healed', 20);
  let printed = await runbook.through(5);
  await traffic.end();
  expect(traffic.refused).toEqual([]);
  printed += await runbook.rest();
  expect(printed).toContain(`{"accountId":"${LATE}","version":1,`);
  expect(printed).toMatch(/^0 of \d+ differ; behind: 0; accounts that are not listed: 0$/m);
  expect(await billing.differencesTo(pool)).toEqual([]);

  await expectSameAnswers(system.url, [...kept.slice(0, 20), ...kept.slice(-20)]); // of both partitions
  await openAccounts(system.url, [LATE]);
  await sendAgain(system.url, rest);
  await settled(arranged);
  await expectVerified(shell);
}

it('Return to a moment', async () => {
  const arranged = await arrange();
  const { server, system, shell, billing, place } = arranged;
  const values: Record<string, string> = {
    ...{ PGDATA: server.dataDir, SERVER: `${server.url}/postgres`, BACKUP: place.backup },
  };
  const runbook = openRunbook(system, shell, 'Return to a moment', values);
  await runbook.through(0);
  await delay(SECOND_MS);
  await runbook.again('pg_basebackup'); // the next night
  const kept = [...(await sendSome(arranged, ACCOUNTS))];
  await settled(arranged);
  await rotateKeys(arranged);
  const tooEarly = await now(arranged);
  kept.push(...(await sendSome(arranged, ACCOUNTS)));
  await settled(arranged);
  const moment = await now(arranged);

  await openAccounts(system.url, [LATE]);
  await shell.paste(NEW_KEY);
  const lost = [...(await sendSome(arranged, CHANGED, true))];
  await settled(arranged);
  await runbook.again('heads-latest.jsonl');
  await delay(SECOND_MS);
  await runbook.again('pg_basebackup'); // too late
  // RabbitMQ is ahead: both queues keep events of changes that will be lost.
  await billing.stop();
  await system.stopWorker();
  lost.push(...(await sendSome(arranged, CHANGED, true)));
  await until('the events are in its queue', async () =>
    /^billing\t[1-9]\d*$/m.test(await system.broker.control('--silent', 'list_queues', 'name', 'messages')),
  );

  const inTheirForm = (date: Date) => date.toISOString().replace('Z', '+00');
  await runbook.through(1);
  const backups = (await runbook.through(2)).match(/^\d{4}-.*$/gm) ?? [];
  expect(backups).toHaveLength(3);
  values.BASE = backups.filter((name) => name < inTheirForm(tooEarly)).at(-1) as string;
  expect(values.BASE).toBe(backups[1]);
  values.MOMENT = inTheirForm(tooEarly);
  await runbook.through(4);
  expect(await missingIn(system.openDatabase(), kept)).not.toEqual([]);
  values.MOMENT = inTheirForm(moment);
  await shell.paste('stop_service');
  await runbook.again(3);
  expect(await missingIn(system.openDatabase(), kept)).toEqual([]);
  await age(arranged);
  const printed = (await runbook.again(4)) + (await runbook.through(7));
  expect(printed).toMatch(/schema version \d+, nothing to do\n/);
  expect(printed).toMatch(KEY_IS_LOST);
  const verified = await shell.paste('cat "$FILES/verify.txt"');
  expect(verified).toMatch(/kept heads lost in a known cut +[1-9]/);
  expect(verified).toContain(`${LATE}: the kept head of version 1 was lost when epoch`);
  await runbook.rest();
  await billing.start();
  await until('the worker has dropped events of the lost history', () =>
    system.processes().some((process) => process.output().includes('dropped events from a history')),
  );
  await heal(arranged, kept, lost, moment);
  expectNoErrors(system);
});

it('Replace the broker', async () => {
  const arranged = await arrange();
  const { system, shell, billing } = arranged;
  const { broker } = system;
  const before = await sendSome(arranged, ACCOUNTS);
  await settled(arranged);
  const since = await now(arranged);
  await billing.stop();
  // Its queue has them; they are much older than their publication.
  await broker.kill();
  const queued = await sendSome(arranged, CHANGED);
  await broker.start();
  const pool = system.openDatabase();
  await until('they are published', async () => (await pendingChanges({ pool, url: '' })) === 0);
  const traffic = startTraffic(() => system.url, CHANGED);
  await traffic.more('while the broker is there');
  await broker.kill();
  broker.wipe();
  await traffic.more('without a broker');
  await openAccounts(system.url, [LATE]);
  await broker.start();
  const values = { ...BROKER_VALUES, SINCE: since.toISOString() };
  const runbook = openRunbook(system, shell, 'Replace the broker', values);
  await runbook.through(2);
  await traffic.more('with the new broker');
  await traffic.end();
  expect(traffic.refused).toEqual([]);
  expect([...traffic.again.keys()].filter((why) => why !== 'overloaded')).toEqual([]);
  await runbook.through(3);
  await pool.query(
    `INSERT INTO missed (queue, routing_keys, first_position, first_created_at) VALUES ('gone', '{#}', 1, now())`,
  );
  await billing.start();
  expect(await runbook.rest()).toContain('highload-balance subscribers forget gone');

  const ofHealing = { BILLING: billing.url, QUEUE: 'billing', SINCE: since.toISOString() };
  const printed = await openRunbook(system, shell, 'Heal a subscriber', ofHealing).rest();
  expect(printed).toMatch(/^0 of \d+ differ; behind: 0; accounts that are not listed: 0$/m);
  await settled(arranged);
  expect(await missingIn(pool, [...before, ...queued, ...traffic.done])).toEqual([]);
  await expectVerified(shell);
});

it('Start from a backup', async () => {
  const arranged = await arrange();
  const { place, server, system, shell, billing } = arranged;
  const target = await startServer(place.reaper, place.folder, 'new');
  const values: Record<string, string> = { NEW: target.url, OWNER_PASSWORD: PASSWORD };
  const runbook = openRunbook(system, shell, 'Start from a backup', values);
  await server.query('balance', 'CREATE PUBLICATION of_others FOR ALL TABLES');
  await runbook.next(); // the night before
  const kept = [...(await sendSome(arranged, ACCOUNTS))];
  await settled(arranged);
  await rotateKeys(arranged);
  // Older than the backup, and the queue has them until it is lost.
  const since = await now(arranged);
  await billing.refuse(STUCK);
  kept.push(...(await sendSome(arranged, ACCOUNTS.slice(5))));
  await settled(arranged, STUCK);
  await delay(SECOND_MS);
  await runbook.again('pg_dump');
  values.NIGHT = (await shell.paste('ls -d "$FILES"/nights/* | tail -1')).trim();
  await openAccounts(system.url, [LATE]);
  await shell.paste(NEW_KEY);
  const lost = await sendSome(arranged, CHANGED, true);
  await settled(arranged, STUCK);
  await runbook.next(); // heads of the day

  await Promise.all([system.kill(), server.lose(), system.broker.kill()]);
  system.broker.wipe();
  await billing.refuseNothing();
  await system.broker.start();
  await openRunbook(system, shell, 'Replace the broker', BROKER_VALUES).through(2);
  let printed = await runbook.through(2);
  await age(arranged);
  printed += await runbook.through(3);
  expect(printed).toContain('repaired: lost: INSERT to balance_worker on ledger, ledger_chain: granted again');
  expect(printed).toMatch(/kept heads that are not in the chains +0\n.*verified\n/s);
  expect(await runbook.through(6)).toMatch(KEY_IS_LOST);
  expect(await shell.paste('cat "$FILES/verify.txt"')).toContain(
    `${LATE}: the kept head of version 1 was lost when epoch`,
  );
  expect(await shell.paste('cat "$FILES/lost.txt"')).toMatch(
    new RegExp(`^${LATE}: version 1 of epoch \\d+; there is no such account$`, 'm'),
  );
  expect(await shell.paste('tail -1 "$FILES/lost.txt"')).toBe(
    `${CHANGED.length + 1} of ${ACCOUNTS.length + 1} differ\n`,
  );
  await runbook.rest();
  await heal(arranged, kept, lost, since);
  expectNoErrors(system);
});
