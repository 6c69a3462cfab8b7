// What a model cannot show: two API processes of 8 lanes each over the same accounts, which are
// opened, changed and frozen meanwhile, while idempotency keys expire, the epoch rises and VACUUM
// runs. Every answer has to fit every other one.
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  type Answer,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  send,
  startApiHere,
  startWorkerHere,
  untilReady,
  verified,
} from '../support/harness.ts';

const RUN_MS = 8000;
const RUN_MS_MORE = 30_000;
const CLIENTS = 12;
const BULK_MAX = 120;
/** Of which the first three get most updates. */
const ACCOUNTS = 24;
/** Longer than any two copies of an update are apart, shorter than the run. */
const KEYS_KEPT_MS = 3000;

let database: Database;
let urls: string[];

beforeAll(async () => {
  database = await createDatabase();
  const broker = createBroker();
  const settings = { LANES: '8', IDEMPOTENCY_KEYS_KEPT_MS: String(KEYS_KEPT_MS) };
  urls = [
    (await startApiHere(database, broker, settings)).url,
    (await startApiHere(database, broker, { ...settings, RELAY: 'off' })).url,
  ];
  await startWorkerHere(database, broker);
  await Promise.all(urls.map(untilReady));
});
afterAll(cleanUp);

interface Update {
  accountId: string;
  amount: number;
  idempotencyKey?: string;
}

/** An update that was applied: its answer. */
interface Applied {
  accountId: string;
  amount: number;
  balance: number;
  version: number;
  eventId: string;
  replayed: boolean;
}

const random = (below: number) => Math.floor(Math.random() * below);
const anAccount = () => `c${random(3) === 0 ? random(ACCOUNTS) : random(3)}`;
const aUrl = () => urls[random(urls.length)] as string;
const anAmount = () => random(31) - 15 || 1;

/** Refusals that say that nothing was changed. */
const REFUSALS = new Set([
  ...['account_not_found', 'account_frozen', 'account_closed'],
  ...['insufficient_funds', 'max_balance_exceeded', 'overloaded'],
]);

it('gives every change a version and an effect of its own, whatever happens at the same time', async () => {
  const end = performance.now() + RUN_MS;
  const latest = end + RUN_MS_MORE;
  // On a busy machine it takes longer until enough has happened.
  const isEnough = () => applied.size > 500 && replays > 20 && changed > 50;
  const untilEnd = async (step: () => Promise<unknown>, pauseMs = 0) => {
    while (performance.now() < end || (!isEnough() && performance.now() < latest)) {
      await step();
      if (pauseMs > 0) await delay(pauseMs);
    }
  };
  /** By eventId. */
  const applied = new Map<string, Applied>();
  const refused: Record<string, number> = {};
  let replays = 0;
  let keys = 0;

  function note(update: Update, body: Answer['body'], replayed: boolean): void {
    if (body.code !== undefined) {
      expect(REFUSALS, JSON.stringify(body)).toContain(body.code);
      refused[body.code] = (refused[body.code] ?? 0) + 1;
      return;
    }
    expect(body).toMatchObject(update.idempotencyKey ? { accountId: update.accountId, amount: update.amount } : {});
    const known = applied.get(body.eventId);
    if (known) {
      // The same change twice is an answer that was given again.
      expect(update.idempotencyKey).toBeDefined();
      expect({ ...known, replayed: true }).toEqual({ ...pick(body), replayed: true });
      expect(replayed || known.replayed).toBe(true);
      replays += 1;
    } else applied.set(body.eventId, { ...pick(body), replayed });
  }
  const pick = ({ accountId, amount, balance, version, eventId }: Applied) => ({
    ...{ accountId, amount, balance, version, eventId },
  });

  async function single(): Promise<void> {
    const update: Update = { accountId: anAccount(), amount: anAmount() };
    if (random(2) === 0) {
      keys += 1;
      update.idempotencyKey = `k${keys}`;
    }
    const { accountId, amount, idempotencyKey } = update;
    const headers: Record<string, string> = idempotencyKey ? { 'idempotency-key': idempotencyKey } : {};
    const copies = idempotencyKey && random(2) === 0 ? 2 : 1; // at the same time, through any process
    const sent = Array.from({ length: copies }, () =>
      send(aUrl(), 'POST', '/v1/balance-updates', { accountId, amount }, headers),
    );
    for (const { body, headers } of await Promise.all(sent)) {
      note(update, body, headers.get('idempotent-replayed') === 'true');
    }
  }

  async function bulk(): Promise<void> {
    const updates = Array.from({ length: 1 + random(BULK_MAX) }, (): Update => {
      if (random(3) > 0) return { accountId: anAccount(), amount: anAmount() };
      keys += 1;
      return { accountId: anAccount(), amount: anAmount(), idempotencyKey: `k${keys}` };
    });
    for (const update of updates.filter(({ idempotencyKey }) => idempotencyKey)) {
      if (random(4) === 0) updates.splice(random(updates.length), 0, update); // twice in one request
    }
    const { status, body } = await send(aUrl(), 'POST', '/v1/balance-updates/bulk', { updates });
    if (status === 503) return note(updates[0] as Update, body, false);
    for (const [index, update] of updates.entries()) note(update, body.results[index], body.results[index].replayed);
  }

  const changes = [
    () => ({ status: 'frozen' }),
    () => ({ status: 'open' }),
    () => ({ status: 'open' }),
    () => ({ overdraftLimit: random(500) }),
    () => ({ maxBalance: random(3) === 0 ? null : random(2000) }),
  ];
  let changed = 0;
  async function change(): Promise<void> {
    const path = `/v1/accounts/${anAccount()}`;
    const { status, body } = await send(aUrl(), 'PATCH', path, changes[random(changes.length)]?.());
    if (status === 200) changed += 1;
    else expect(['account_not_found', 'overdraft_limit_too_low', 'overloaded']).toContain(body.code);
  }

  /**
   * Each account is opened by two at the same moment, while updates of it are on their way already.
   */
  async function open(): Promise<void> {
    for (let number = 0; number < ACCOUNTS; number += 1) {
      const body = { id: `c${number}`, overdraftLimit: 100 };
      const answers = await Promise.all(urls.map((url) => send(url, 'POST', '/v1/accounts', body)));
      for (const { status, body: answer } of answers) {
        if (answer.code)
          expect(answer.code).toBe('account_exists'); // its limit was changed meanwhile
        else expect([200, 201]).toContain(status);
      }
      await delay(RUN_MS / 2 / ACCOUNTS);
    }
  }

  let proofs = 0;
  await Promise.all([
    open(),
    ...Array.from({ length: CLIENTS }, () => untilEnd(single)),
    ...Array.from({ length: 3 }, () => untilEnd(bulk, 10)),
    ...Array.from({ length: 2 }, () => untilEnd(change, 5)),
    untilEnd(() => database.pool.query('VACUUM account'), 100),
    untilEnd(() => database.pool.query('VACUUM (ANALYZE) idempotency_key, ledger, hold'), 300),
    untilEnd(raiseEpoch, 700),
    untilEnd(async () => {
      expect((await verified(database)).offenders).toEqual([]);
      proofs += 1;
    }, 100),
  ]);

  expect(applied.size).toBeGreaterThan(500);
  expect({ replays, changed, proofs, epochs: (await epochs()).length }).toEqual({
    replays: expect.toSatisfy((count: number) => count > 20),
    changed: expect.toSatisfy((count: number) => count > 50),
    proofs: expect.toSatisfy((count: number) => count > 5),
    epochs: expect.toSatisfy((count: number) => count > 5),
  });
  expect(Object.keys(refused)).toEqual(
    expect.arrayContaining(['account_not_found', 'account_frozen', 'insufficient_funds']),
  );

  // The answers are the ledger, but for the openings and the changes of limits.
  expect(await drained(database)).toMatchObject({ offendingAccounts: 0, pendingChanges: 0 });
  const { rows } = await database.pool.query(
    `SELECT account_id AS "accountId", amount, balance, version, account_id || ':' || version AS change
     FROM ledger WHERE type LIKE 'balance.%' ORDER BY account_id, version`,
  );
  const answered = [...applied.values()].map(({ replayed, eventId, ...rest }) => ({
    ...rest,
    change: eventId.slice(0, eventId.lastIndexOf(':')),
  }));
  answered.sort((one, other) =>
    one.accountId === other.accountId ? one.version - other.version : one.accountId < other.accountId ? -1 : 1,
  );
  expect(answered).toEqual(rows);
  const opened = await database.pool.query(`SELECT count(*) AS entries FROM ledger WHERE type = 'account.opened'`);
  expect(opened.rows).toEqual([{ entries: ACCOUNTS }]);
});

/** As if another server had been the last to speak. */
const raiseEpoch = () =>
  database.pool.query(
    `INSERT INTO epoch (epoch, timeline, server_started_at, database_name, table_oid)
               SELECT coalesce(max(epoch), 0) + 1, 'FFFFFFFF', now(), current_database(), 'epoch'::regclass FROM epoch`,
  );
const epochs = async () => (await database.pool.query('SELECT DISTINCT epoch FROM ledger')).rows;
