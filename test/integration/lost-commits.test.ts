// The database loses commits: a standby that lacks them is promoted, an older state is restored.
// What was answered and is gone is named, what is there is proven, and where nothing was lost
// nothing is said.
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createClient } from '../../src/client/client.ts';
import type { Handled, Rewind } from '../../src/client/events.ts';
import type { RunningPostgres } from '../../src/local/postgres.ts';
import { signal, waitForExit } from '../../src/local/process-end.ts';
import { listChainHeads } from '../../src/shared/chain-head.ts';
import type { ChainHead } from '../../src/shared/contract.ts';
import { openClient, openPool } from '../../src/shared/database.ts';
import { migrate } from '../../src/shared/migrations.ts';
import { startProxy, type TcpProxy } from '../chaos/proxy.ts';
import { runCommand } from '../support/commands.ts';
import {
  addressesOf,
  type Broker,
  cleanUp,
  createBroker,
  createFolder,
  type Database,
  drained,
  environmentOf,
  onCleanUp,
  send,
  spawnProcess,
  startWorkerHere,
  until,
} from '../support/harness.ts';
import { startRestorable } from '../support/restorable.ts';
import { startPair } from '../support/standby.ts';
import { startSubscriber } from '../support/subscriber.ts';

const STOP_TIMEOUT_MS = 20_000;
/** Two servers, the service and a command or four are started, one after the other. */
const FAILOVER_MS = 400_000;
const ACCOUNTS = Array.from({ length: 12 }, (_, number) => `account-${10 + number}`);

let folder: string;

beforeEach(async () => {
  folder = await createFolder();
});
afterEach(cleanUp);

interface Service {
  url: string;
  /** By way of the fixed address that the service has. */
  database: Database;
  broker: Broker;
  billing: Billing;
  /** Log lines of the API from level error on, and others that name the epoch. */
  reports(): { level: string; msg: string; lost?: object[] }[];
  /** Leads to another server from now on. */
  leadTo(server: { port: number }): void;
}

/**
 * A consumer as the documentation describes it: what it did for each account, which it can undo.
 */
interface Billing {
  queue: string;
  /** Ids of the events that have taken effect, in order, by account. */
  effects: Map<string, string[]>;
  /** What `compare` takes. */
  stored: Map<string, Handled>;
  rewinds: Rewind[];
  /** Undoes what it did above the version. */
  takeBackTo(accountId: string, version: number): void;
  isEqualTo(database: Database): Promise<boolean>;
}

async function startBilling(url: string, broker: Broker): Promise<Billing> {
  const queue = `${broker.namespace}-billing`;
  const effects = new Map<string, string[]>();
  const histories = new Map<string, Handled[]>();
  const takeBackTo = (accountId: string, version: number) => {
    effects.get(accountId)?.splice(version + 1);
    const history = histories.get(accountId) ?? [];
    history.splice(version + 1);
    if (history.length > 0) stored.set(accountId, history.at(-1) as Handled);
    else stored.delete(accountId);
  };
  const { subscription, stored, rewinds } = startSubscriber({
    ...{ url: broker.url, namespace: broker.namespace, queue, client: createClient({ url }) },
    handle({ id, data: { accountId } }, { handled }) {
      effects.set(accountId, [...(effects.get(accountId) ?? []), id]);
      histories.set(accountId, [...(histories.get(accountId) ?? []), handled]);
    },
    onRewind(rewind) {
      rewinds.push(rewind);
      takeBackTo(rewind.accountId, rewind.shared?.version ?? -1);
    },
  });
  onCleanUp(async () => {
    await subscription.stop();
    const channel = await (await broker.connect()).createChannel();
    await channel.deleteQueue(queue);
  });
  await until('it consumes', () => subscription.isConsuming);
  const isEqualTo = async ({ pool }: Database) => {
    const { rows } = await pool.query(
      `SELECT account_id AS id, array_agg(event_id(account_id, version, epoch) ORDER BY version) AS ids
       FROM ledger GROUP BY 1 ORDER BY 1`,
    );
    const done = [...effects].filter(([, ids]) => ids.length > 0).sort();
    return JSON.stringify(done) === JSON.stringify(rows.map(({ id, ids }) => [id, ids]));
  };
  return { queue, effects, stored, rewinds, takeBackTo, isEqualTo };
}

/** API, relay, worker and a subscriber behind one address. */
async function startService(server: RunningPostgres): Promise<Service> {
  const target = { port: server.port };
  const proxy: TcpProxy = await startProxy(target);
  onCleanUp(() => proxy.close());
  const url = new URL(server.url);
  url.port = String(proxy.port);
  const pool = openPool(url.href, 'test', 4, { access: 'any server' });
  onCleanUp(() => pool.end());
  const database = { url: url.href, pool };
  const broker = createBroker();
  const api = await spawnProcess('api', environmentOf(database, broker));
  await startWorkerHere(database, broker);
  return {
    url: api.url(),
    database,
    broker,
    billing: await startBilling(api.url(), broker),
    reports: () => api.lines().filter(({ level, msg }) => level === 'error' || /epoch/.test(msg)),
    leadTo({ port }) {
      target.port = port;
      for (const connection of proxy.connections()) connection.cut();
    },
  };
}

async function open({ url }: Service, id: string): Promise<void> {
  expect((await send(url, 'POST', '/v1/accounts', { id })).status).toBe(201);
}

async function credit({ url }: Service, accountId: string, amount = 1) {
  const { status, body } = await send(url, 'POST', '/v1/balance-updates', { accountId, amount });
  expect({ status, accountId }).toEqual({ status: 200, accountId });
  return body as { accountId: string; version: number; eventId: string };
}

async function end(server: RunningPostgres, how: 'SIGQUIT' | 'SIGINT'): Promise<void> {
  signal(server.process, how);
  expect(await waitForExit(server.process, STOP_TIMEOUT_MS)).toBe(true);
}

async function isReady({ url }: Service): Promise<boolean> {
  return send(url, 'GET', '/readyz').then(
    ({ status }) => status === 200,
    () => false,
  );
}

/** What the subscriber handled last of each account, as `compare` takes it. */
async function versionsFile({ billing }: Service): Promise<string> {
  const file = path.join(folder, 'versions.csv');
  const lines = [...billing.stored].map(([accountId, { version, epoch }]) => `${accountId},${version},${epoch}\n`);
  await writeFile(file, lines.join(''));
  return file;
}

/**
 * What docs/recover.md says: compare, take back what differs, give it what this history has from
 * there on.
 */
async function bringBack(service: Service): Promise<string[]> {
  const { database, broker, billing } = service;
  const { out } = await run(database, 'compare', '--versions', await versionsFile(service), '--json');
  const differing = out
    .trim()
    .split('\n')
    .slice(0, -1) // the counts
    .map((line) => JSON.parse(line) as { accountId: string; presentVersion: number | null; sharedVersion: number });
  for (const { accountId, presentVersion, sharedVersion } of differing) {
    billing.takeBackTo(accountId, sharedVersion);
    if (presentVersion === null || presentVersion === sharedVersion) continue; // this history has nothing above it
    const from = ['--account', accountId, '--from-version', String(sharedVersion + 1)];
    const replayed = await runCommand(['replay', '--queue', billing.queue, ...from], addressesOf(database, broker));
    expect(replayed).toMatchObject({ code: 0 });
  }
  return differing.map(({ accountId }) => accountId).sort();
}

async function headsOf({ database }: Service): Promise<ChainHead[]> {
  const heads: ChainHead[] = [];
  for await (const page of listChainHeads(database.pool as never)) heads.push(...page);
  return heads;
}

async function chained({ database }: Service): Promise<void> {
  await until('all entries have their hashes', async () => {
    const { rows } = await database.pool.query(`
      SELECT count(*) AS behind FROM account WHERE version IS DISTINCT FROM (
        SELECT max(last_version) FROM ledger_chain WHERE ledger_chain.account_id = account.account_id)`);
    return rows[0].behind === 0;
  });
}

const run = ({ url }: Database, ...args: string[]) => runCommand(args, { DATABASE_URL: url });

async function lostAnswers({ url }: Service): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  return Number(/^balance_lost_answers_total (\d+)$/m.exec(text)?.[1]);
}

const isReported = ({ msg }: { msg: string }) => msg.startsWith('the database lost commits');
const isHarmless = ({ msg }: { msg: string }) => msg.startsWith('the epoch rose');

it(
  'names what was answered by a new primary when the old one, which never stopped, is the database again',
  async () => {
    const pair = await startPair(migrate);
    const service = await startService(pair.primary);
    const [accountId = ''] = ACCOUNTS;
    await open(service, accountId);
    await credit(service, accountId, 100);
    await drained(service.database);
    await pair.caughtUp();
    service.leadTo(pair.standby);
    await pair.promote();
    await until('the service goes on', () => isReady(service));
    const lost = await credit(service, accountId);
    const epoch = Number.parseInt(lost.eventId.split(':')[2] ?? '', 36);
    await until('the new epoch is known', () => service.reports().some(isHarmless));

    service.leadTo(pair.primary);
    await until('the service goes on', () => isReady(service));
    await until('it is reported', () => service.reports().some(isReported));
    const named = service.reports().flatMap((report) => report.lost ?? []);
    expect(named).toEqual([{ accountId, firstVersion: lost.version, lastVersion: lost.version, epoch }]);
    const isFall = ({ msg }: { msg: string }) => msg.startsWith('the epoch fell');
    expect(service.reports().filter(isFall)).toHaveLength(1);
  },
  FAILOVER_MS,
);

it(
  'names what a promoted standby lacks, and proves the rest',
  async () => {
    const pair = await startPair(migrate);
    const service = await startService(pair.primary);
    for (const id of ACCOUNTS) await open(service, id);
    for (const id of ACCOUNTS) await credit(service, id, 100);
    await drained(service.database);
    await chained(service);
    const early = await headsOf(service);
    await pair.caughtUp();

    // From here on the standby gets nothing.
    const standby = await openClient(pair.standby.url, 'test', { access: 'any server' });
    await standby.query(`ALTER SYSTEM SET primary_conninfo = ''`);
    await standby.query('SELECT pg_reload_conf()');
    await until('it receives nothing', async () => {
      const { rows } = await standby.query('SELECT FROM pg_stat_wal_receiver');
      return rows.length === 0;
    });
    await standby.end();
    const [once = '', often = '', changed = '', paying = '', paid = ''] = ACCOUNTS;
    const lost = [await credit(service, once), await credit(service, often), await credit(service, often)];
    expect((await send(service.url, 'PATCH', `/v1/accounts/${changed}`, { overdraftLimit: 5 })).status).toBe(200);
    const transfer = { from: paying, to: paid, amount: 1 };
    expect((await send(service.url, 'POST', '/v1/transfers', transfer)).status).toBe(200);
    await open(service, 'late');
    await drained(service.database);
    await chained(service);
    const late = await headsOf(service);
    await until('the subscriber has all', () => service.billing.isEqualTo(service.database));
    const versions = await versionsFile(service);
    expect(service.reports()).toEqual([]);

    await end(pair.primary, 'SIGQUIT');
    service.leadTo(pair.standby);
    await pair.promote();
    await until('the service continues', () => isReady(service));

    // One account is changed again at once, before anything looked; the others wait for their turn.
    const [again] = [await credit(service, often)];
    await until('it is reported', () => service.reports().some(isReported));
    const names = service.reports().flatMap((report) => report.lost ?? []);
    const epoch = Number.parseInt(lost[0]?.eventId.split(':')[2] ?? '', 36);
    const one = { firstVersion: 2, lastVersion: 2, epoch };
    expect(names).toHaveLength(6);
    expect(names).toEqual(
      expect.arrayContaining([
        { accountId: once, ...one },
        { accountId: often, firstVersion: 2, lastVersion: 3, epoch },
        { accountId: changed, ...one },
        { accountId: paying, ...one },
        { accountId: paid, ...one },
        { accountId: 'late', firstVersion: 0, lastVersion: 0, epoch },
      ]),
    );
    expect(service.reports().find(isReported)).toMatchObject({ compared: 13, accounts: 6 });
    expect(await lostAnswers(service)).toBe(6);

    // The same version is another change, and its id says so.
    expect(again).toMatchObject({ accountId: often, version: 2 });
    expect(again.eventId).not.toBe(lost[1]?.eventId);
    expect(await drained(service.database)).toMatchObject({ accounts: 12, offendingAccounts: 0 });
    await chained(service);

    const compared = await run(service.database, 'compare', '--versions', versions);
    const cut = Number.parseInt(again.eventId.split(':')[2] ?? '', 36);
    expect(compared.code).toBe(1);
    expect(compared.out.trim().split('\n').sort()).toEqual(
      [
        `${once}: version 2 of epoch ${epoch}; the account is at version 1. The last that is shared is 1`,
        `${often}: version 3 of epoch ${epoch}; the account is at version 2. The last that is shared is 1`,
        `${changed}: version 2 of epoch ${epoch}; the account is at version 1. The last that is shared is 1`,
        `${paying}: version 2 of epoch ${epoch}; the account is at version 1. The last that is shared is 1`,
        `${paid}: version 2 of epoch ${epoch}; the account is at version 1. The last that is shared is 1`,
        `late: version 0 of epoch ${epoch}; there is no such account`,
        '6 of 13 differ',
      ].sort(),
    );

    const heads = path.join(folder, 'heads.jsonl');
    const verify = async (kept: readonly ChainHead[], ...args: string[]) => {
      await writeFile(heads, kept.map((head) => `${JSON.stringify(head)}\n`).join(''));
      return run(service.database, 'verify', '--heads', heads, ...args);
    };
    const broken = await verify(late);
    expect(broken.code).toBe(1);
    expect(broken.out).toContain(
      `${once}: the kept head has version 2 in epoch ${epoch}, where no segment ends; the chain ends at 1. Epoch ${cut} began at `,
    );
    expect(broken.out).toContain(`--cut-at ${cut} if the database was restored then`);
    const excused = await verify([...early, ...late], '--cut-at', String(cut));
    expect(excused).toMatchObject({ code: 0, out: expect.stringContaining('kept heads lost in a known cut') });
    expect(excused.out).toContain(`late: the kept head of version 0 was lost when epoch ${cut} began`);
    // Not what is older than the cut.
    const forged = { ...(early[0] as ChainHead), hash: 'f'.repeat(64) };
    const found = await verify([...late, forged], '--cut-at', String(cut));
    expect(found.code).toBe(1);
    expect(found.out).toMatch(/kept heads that are not in the chains +1$/m);

    // The subscriber noticed by itself where something happened since; the rest is brought back as
    // documented.
    await until('it noticed', () => service.billing.rewinds.length === 1);
    expect(service.billing.rewinds).toMatchObject([{ accountId: often, last: { version: 3 }, shared: { version: 1 } }]);
    await until('it has what came', () => service.billing.stored.get(often)?.version === 2);
    expect(await service.billing.isEqualTo(service.database)).toBe(false);
    expect(await bringBack(service)).toEqual([once, changed, paying, paid, 'late'].sort());
    await credit(service, once); // a version that it had of the other history
    await until('it equals the ledger', () => service.billing.isEqualTo(service.database));
    const settled = await run(service.database, 'compare', '--versions', await versionsFile(service));
    expect(settled).toMatchObject({ code: 0, out: '0 of 12 differ\n' });
    expect(service.billing.rewinds).toHaveLength(1);
  },
  FAILOVER_MS,
);

it(
  'says nothing where the promoted standby lacks nothing',
  async () => {
    const pair = await startPair(migrate);
    const service = await startService(pair.primary);
    for (const id of ACCOUNTS) await open(service, id);
    for (const id of ACCOUNTS) await credit(service, id, 100);
    await drained(service.database);
    await pair.caughtUp();
    await end(pair.primary, 'SIGINT');
    service.leadTo(pair.standby);
    await pair.promote();
    await until('the service continues', () => isReady(service));
    const { eventId } = await credit(service, ACCOUNTS[0] as string);
    await until('it has compared', () => service.reports().some(isHarmless));
    await until('the subscriber has it', () => service.billing.effects.get(ACCOUNTS[0] as string)?.at(-1) === eventId);
    await drained(service.database);
    await until('it equals the ledger', () => service.billing.isEqualTo(service.database));
    expect(service.billing.rewinds).toEqual([]);
    expect(service.reports().find(isHarmless)).toMatchObject({ compared: 12 });
    expect(service.reports().filter(({ lost }) => lost)).toEqual([]);
    expect(await lostAnswers(service)).toBe(0);
    const compared = await run(service.database, 'compare', '--versions', await versionsFile(service));
    expect(compared).toMatchObject({ code: 0, out: '0 of 12 differ\n' });
    expect(await drained(service.database)).toMatchObject({ accounts: 12, offendingAccounts: 0 });
  },
  FAILOVER_MS,
);

it(
  'names what a point-in-time restore took back',
  async () => {
    const restorable = await startRestorable(async (url) => void (await migrate(url)));
    const service = await startService(restorable.server);
    const accounts = ACCOUNTS.slice(0, 3);
    for (const id of accounts) await open(service, id);
    for (const id of accounts) await credit(service, id, 100);
    await drained(service.database);
    await restorable.mark();
    const [first = '', second = ''] = accounts;
    const lost = [await credit(service, first), await credit(service, second), await credit(service, second)];
    await drained(service.database);
    await until('the subscriber has all', () => service.billing.isEqualTo(service.database));
    const versions = await versionsFile(service);
    await end(restorable.server, 'SIGQUIT');
    service.leadTo(await restorable.restore());
    await until('the service continues', () => isReady(service));
    await until('it is reported', () => service.reports().some(isReported));
    const epoch = Number.parseInt(lost[0]?.eventId.split(':')[2] ?? '', 36);
    const names = service.reports().flatMap((report) => report.lost ?? []);
    expect(names).toHaveLength(2);
    expect(names).toEqual(
      expect.arrayContaining([
        { accountId: first, firstVersion: 2, lastVersion: 2, epoch },
        { accountId: second, firstVersion: 2, lastVersion: 3, epoch },
      ]),
    );
    expect(await credit(service, second)).toMatchObject({ version: 2 });
    expect(await drained(service.database)).toMatchObject({ accounts: 3, offendingAccounts: 0 });
    const compared = await run(service.database, 'compare', '--versions', versions);
    expect(compared.out.trim().split('\n').sort()).toEqual(
      [
        `${first}: version 2 of epoch ${epoch}; the account is at version 1. The last that is shared is 1`,
        `${second}: version 3 of epoch ${epoch}; the account is at version 2. The last that is shared is 1`,
        '2 of 3 differ',
      ].sort(),
    );
    await until('it noticed', () => service.billing.rewinds.length === 1);
    await until('it has what came', () => service.billing.stored.get(second)?.version === 2);
    expect(await bringBack(service)).toEqual([first]);
    await until('it equals the ledger', () => service.billing.isEqualTo(service.database));
  },
  FAILOVER_MS,
);
