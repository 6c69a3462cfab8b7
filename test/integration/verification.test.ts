// npm run verify: right at any instant under load, and it finds and names every kind of damage.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { CHANGE_COLUMN_NAMES, CHANGE_COLUMNS } from '../../src/shared/change.ts';
import type { ChainHead } from '../../src/shared/contract.ts';
import { countLegsElsewhere } from '../../src/shared/legs-elsewhere.ts';
import { type Verification, verify, verifyAccount } from '../../src/shared/verification.ts';
import { startCommand } from '../support/commands.ts';
import {
  applyDirectly,
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  type Database,
  drained,
  eventIds,
  headsOf,
  insertAccounts,
  send,
  startApiHere,
  startWorkerHere,
  until,
  verified,
  verifiedSince,
} from '../support/harness.ts';
import { disarm } from '../support/ledger-rows.ts';
import { expectSameSinceOpenings } from '../support/since-openings.ts';

afterAll(cleanUp);

const PROOFS = 20;

describe('under load', () => {
  afterAll(cleanUp);

  it('passes at every instant while updates are accepted, published and recorded', async () => {
    const database = await createDatabase();
    const broker = createBroker();
    const { url } = await startApiHere(database, broker);
    await startWorkerHere(database, broker);
    const accounts = ['hot', 'b', 'c', 'd'];
    await insertAccounts(database, ...accounts);
    let proofs = 0;
    let pendingSeen = 0;
    const entriesSince: number[] = [];
    const clients = Array.from({ length: 16 }, async (_, client) => {
      // Until verify has looked often enough at a moving system, and bounded.
      for (let count = 0; count < 2000 && proofs < PROOFS; count += 1) {
        const accountId = accounts[count % 2 ? 0 : client % accounts.length] as string;
        const amount = count % 3 === 2 ? -1 : 2;
        const { body } = await send(url, 'POST', '/v1/balance-updates', { accountId, amount });
        const other = accounts[(count + 1) % 2 ? 0 : 1 + (client % 3)] as string;
        if (count % 3 === 0) await moveMoney(url, `${client}-${count}`, accountId, other, body.eventId);
        // Changes of limits and status, and accounts that open, are changes too.
        if (count % 5 === 4) await send(url, 'PATCH', `/v1/accounts/${accountId}`, { overdraftLimit: 1 + client });
        if (count % 7 === 6) await send(url, 'POST', '/v1/accounts', { id: `new-${client}-${count}` });
      }
    });
    const kept: ChainHead[][] = [];
    const proving = (async () => {
      while (proofs < PROOFS) {
        const found = await verified(database);
        expect(found.offenders).toEqual([]);
        // Heads of all the moments before: changes, transfers and holds go on across them.
        kept.push(await headsOf(database));
        const since = await verifiedSince(database, kept[Math.floor(proofs / 2)] ?? []);
        expect(since).toMatchObject({ offenders: [] });
        entriesSince.push(since.ledgerEntries);
        expect((await verifiedAlone(database, 'hot'))?.problems).toEqual([]);
        pendingSeen += found.pendingChanges;
        proofs += 1;
      }
    })();
    await Promise.all([proving, ...clients]);
    expect(pendingSeen).toBeGreaterThan(0); // it looked while changes were in flight
    expect(Math.max(...entriesSince)).toBeGreaterThan(0);
    const { rows } = await database.pool.query(`
      SELECT count(*) FILTER (WHERE type = 'hold.expired') > 0 AS expired,
             count(*) FILTER (WHERE amount < 0 AND hold_id IS NOT NULL AND transfer_id IS NOT NULL) > 0 AS captured,
             count(*) FILTER (WHERE reverses IS NOT NULL AND transfer_id IS NULL) > 0 AS reversed,
             count(*) FILTER (WHERE reverses IS NOT NULL AND transfer_id IS NOT NULL) > 0 AS whole_reversed
      FROM (SELECT type, amount, hold_id, transfer_id, reverses FROM ledger UNION ALL
            SELECT type, amount, hold_id, transfer_id, reverses FROM outbox) changes`);
    expect(rows).toEqual([{ expired: true, captured: true, reversed: true, whole_reversed: true }]);
    const activeHolds = `SELECT count(*)::integer AS holds FROM hold WHERE status = 'active'`;
    await until('no hold is left to expire', async () => (await database.pool.query(activeHolds)).rows[0].holds === 0);
    expect(await drained(database)).toMatchObject({ offendingAccounts: 0, pendingChanges: 0 });
  });
});

/**
 * A transfer, its reversal, one of a change, and a hold: a part is captured to the other account,
 * the rest released or expired.
 */
async function moveMoney(url: string, holdId: string, from: string, to: string, eventId: string): Promise<void> {
  if (from === to) return;
  const holds = `/v1/accounts/${from}/holds`;
  const { body } = await send(url, 'POST', '/v1/transfers', { from, to, amount: 3 });
  if (body.transferId) await send(url, 'POST', '/v1/reversals', { of: body.transferId, amount: 2 });
  await send(url, 'POST', '/v1/reversals', { of: eventId });
  await send(url, 'POST', holds, { holdId, amount: 2, expiresInSeconds: 1 });
  await send(url, 'POST', `${holds}/${holdId}/capture`, { to, amount: 1, final: holdId.endsWith('0') });
}

async function verifiedAlone({ pool }: Database, accountId: string) {
  const client = await pool.connect();
  try {
    return await verifyAccount(client, accountId);
  } finally {
    client.release();
  }
}

describe('of holds, transfers and reversals', () => {
  let database: Database;
  let url: string;
  let id: (accountId: string, version: number) => string;

  const post = async (path: string, body: object) => {
    const answer = await send(url, 'POST', path, body);
    expect(answer).toMatchObject({ status: expect.toSatisfy((status: number) => status === 200 || status === 201) });
    return answer.body;
  };

  beforeAll(async () => {
    database = await createDatabase();
    ({ url } = await startApiHere(database, createBroker(), { RELAY: 'off' }));
    id = await eventIds(database);
    await disarm(database.pool);
    const { rows } = await database.pool.query(
      `SELECT conrelid::regclass AS name, conname FROM pg_constraint WHERE contype = 'c' AND conrelid IN ('hold'::regclass, 'reversal'::regclass)`,
    );
    for (const { name, conname } of rows) await database.pool.query(`ALTER TABLE ${name} DROP CONSTRAINT ${conname}`);
  });
  beforeEach(async () => {
    await database.pool.query('TRUNCATE account, hold, reversal, idempotency_key, outbox, ledger');
    for (const account of ['a', 'b', 'c']) await createAccount(url, account, 1000);
    await post('/v1/transfers', { from: 'a', to: 'b', amount: 100 }); // a 2, b 2
    const legs = { a: -30, b: -20, c: 50 };
    await post('/v1/transfers', {
      legs: Object.entries(legs).map(([accountId, amount]) => ({ accountId, amount })), // a 3, b 3, c 2
    });
    await post('/v1/reversals', { of: id('a', 3) }); // a 4, b 4, c 3
    await post('/v1/reversals', { of: id('a', 2), amount: 40 }); // a 5, b 5
    await post('/v1/reversals', { of: id('a', 2), amount: 5 }); // a 6, b 6
    await post('/v1/balance-updates', { accountId: 'b', amount: -10 }); // b 7
    await post('/v1/reversals', { of: id('b', 7), amount: 4 }); // b 8
    await post('/v1/accounts/a/holds', {
      ...{ holdId: 'active', amount: 50, expiresInSeconds: 3600, reference: 'order 7', metadata: { shop: '1' } },
    }); // a 7
    const changed = await send(url, 'PATCH', '/v1/accounts/a/holds/active', { amount: 60 }); // a 8
    expect(changed.status).toBe(200);
    await post('/v1/accounts/a/holds/active/capture', {
      ...{ amount: 20, final: false, reference: 'parcel 9', metadata: { parcel: '9' } },
    }); // a 9
    await post('/v1/accounts/a/holds', { holdId: 'captured', amount: 30 }); // a 10
    await post('/v1/accounts/a/holds/captured/capture', { amount: 10, to: 'b' }); // a 11, b 9
    await post('/v1/accounts/a/holds', { holdId: 'released', amount: 7 }); // a 12
    await post('/v1/accounts/a/holds/released/release', {}); // a 13
    await post('/v1/accounts/a/holds', { holdId: 'expired', amount: 5, expiresInSeconds: 1 }); // a 14
    await database.pool.query(`
      UPDATE hold SET expires_at = '2026-01-01' WHERE hold_id = 'expired';
      UPDATE outbox SET hold_expires_at = '2026-01-01' WHERE hold_id = 'expired'`);
    await post('/v1/balance-updates', { accountId: 'a', amount: -1 }); // a 15 expires it, a 16
    // Not due any more: where a test makes it active again, no sweep expires it once more.
    await database.pool.query(`
      UPDATE hold SET expires_at = '2100-01-01' WHERE hold_id = 'expired';
      UPDATE outbox SET hold_expires_at = '2100-01-01' WHERE hold_id = 'expired'`);
    // Up to 6 in the ledger, from 5 in the outbox. Of the capture to b, one leg is in the ledger.
    await database.pool.query(
      `INSERT INTO ledger (${CHANGE_COLUMN_NAMES}) SELECT ${CHANGE_COLUMN_NAMES} FROM outbox
       WHERE version <= 6 OR account_id = 'b' AND version <= 9`,
    );
    await database.pool.query(`DELETE FROM outbox WHERE version < 5 OR account_id = 'b' AND version < 8`);
  });
  afterAll(cleanUp);

  /** What is wrong of each account, found with all of them and alone. */
  async function problems(): Promise<Record<string, string[]>> {
    const found = await verified(database);
    const { offenders } = found;
    await expectSameSinceOpenings(database, found);
    for (const { accountId, problems } of offenders) {
      expect((await verifiedAlone(database, accountId))?.problems).toEqual(problems);
    }
    return Object.fromEntries(offenders.map(({ accountId, problems }) => [accountId, problems]));
  }

  it('nothing is reported of what is right', async () => {
    const { rows } = await database.pool.query('SELECT account_id AS id, version FROM account ORDER BY account_id');
    expect(rows).toEqual([
      { id: 'a', version: 16 },
      { id: 'b', version: 9 },
      { id: 'c', version: 3 },
    ]);
    const holds = await database.pool.query('SELECT status, remaining FROM hold ORDER BY hold_id');
    expect(holds.rows).toEqual([
      { status: 'active', remaining: 40 },
      { status: 'captured', remaining: 0 },
      { status: 'expired', remaining: 0 },
      { status: 'released', remaining: 0 },
    ]);
    expect(await problems()).toEqual({});
  });

  it('nor where captures are reversed, and the rest of what was reversed in part', async () => {
    await post('/v1/reversals', { of: id('a', 9) });
    await post('/v1/reversals', { of: id('a', 11), amount: 3 });
    await post('/v1/reversals', { of: id('a', 11) });
    await post('/v1/reversals', { of: id('a', 2) });
    await post('/v1/reversals', { of: id('b', 7) });
    const { rows } = await database.pool.query(
      'SELECT account_id AS id, version FROM reversal WHERE reversed = original',
    );
    expect(rows).toHaveLength(5);
    expect(await problems()).toEqual({});
  });

  const setHold = (holdId: string, change: string) => `UPDATE hold SET ${change} WHERE hold_id = '${holdId}';`;
  /** In ledger and outbox alike. */
  const set = (account: string, version: number, change: string) =>
    ['ledger', 'outbox']
      .map((table) => `UPDATE ${table} SET ${change} WHERE account_id = '${account}' AND version = ${version};`)
      .join('');
  const setReversal = (account: string, version: number, change: string) =>
    `UPDATE reversal SET ${change} WHERE account_id = '${account}' AND version = ${version};`;

  it.each<[string, () => string, string, () => string[]]>([
    [
      'a hold that has less left',
      () => setHold('active', 'remaining = 39'),
      'a',
      () => [
        'the account holds 40, but its active holds have 39 left',
        'hold active is active with 39 left, but its last entry says active with 40',
        'hold active has 39 left, but its entries add up to 40',
      ],
    ],
    [
      'a hold made another',
      () => setHold('active', `status = 'released'`),
      'a',
      () => [
        'the account holds 40, but its active holds have 0 left',
        'hold active is released with 40 left, but its last entry says active with 40',
      ],
    ],
    [
      'a hold that is active again',
      () =>
        `${setHold('expired', `status = 'active', remaining = 5`)} UPDATE account SET held = 45 WHERE account_id = 'a'`,
      'a',
      () => [
        'the account holds 45, but the changes of its entries add up to 40',
        'hold expired is active with 5 left, but its last entry says expired with 0',
        'hold expired has 5 left, but its entries add up to 0',
      ],
    ],
    [
      'an account that holds more',
      () => `UPDATE account SET held = 41 WHERE account_id = 'a'`,
      'a',
      () => [
        'the account holds 41, but the changes of its entries add up to 40',
        'the account holds 41, but its active holds have 40 left',
      ],
    ],
    [
      'a hold that expires later',
      () => setHold('active', `expires_at = expires_at + interval '1 ms'`),
      'a',
      () => ['hold active has another expiry than its last entry'],
    ],
    [
      'a hold that never expires',
      () => setHold('active', 'expires_at = NULL'),
      'a',
      () => ['hold active has another expiry than its last entry'],
    ],
    [
      'a hold captured further',
      () => setHold('captured', 'captured = 11'),
      'a',
      () => ['hold captured has 11 captured, but its entries took 10'],
    ],
    [
      'a hold of another amount',
      () => setHold('active', 'amount = 61'),
      'a',
      () => ['hold active has the amount 61, but its entries set aside 60'],
    ],
    [
      'holds of other amounts, of which one is named',
      () => setHold('active', 'amount = 61') + setHold('captured', 'amount = 31') + setHold('released', 'amount = 8'),
      'a',
      () => ['hold active has the amount 61, but its entries set aside 60 (and 2 more)'],
    ],
    [
      'a hold placed earlier',
      () => setHold('active', `created_at = '2025-11-23T20:00:00Z'`),
      'a',
      () => [expect.stringMatching(/^hold active was placed at 2025-11-23 .*, but its first entry says 20/)],
    ],
    [
      'a hold changed later',
      () => setHold('active', `updated_at = '2100-11-23T20:00:00Z'`),
      'a',
      () => [expect.stringMatching(/^hold active was last changed at 2100-11-23 .*, but its last entry says 20/)],
    ],
    [
      'a hold that expired later',
      () => setHold('expired', `updated_at = updated_at + interval '1 ms'`),
      'a',
      () => [expect.stringMatching(/^hold expired was last changed at .*, but its last entry says /)],
    ],
    [
      'a hold with the reference of its capture',
      () => setHold('active', `reference = 'parcel 9'`),
      'a',
      () => ['hold active has another reference than the entry that placed it'],
    ],
    [
      'a hold with a reference where there was none',
      () => setHold('released', `reference = ''`),
      'a',
      () => ['hold released has another reference than the entry that placed it'],
    ],
    [
      'a hold with other metadata',
      () => setHold('active', `metadata = '{"shop":"2"}'`),
      'a',
      () => ['hold active has other metadata than the entry that placed it'],
    ],
    [
      'a hold without its metadata',
      () => setHold('active', 'metadata = NULL'),
      'a',
      () => ['hold active has other metadata than the entry that placed it'],
    ],
    [
      'a hold of a client where authentication was off',
      () => setHold('active', `client = 'eve'`),
      'a',
      () => ['hold active is of another client than the entry that placed it'],
    ],
    [
      'a hold whose placing was made a change',
      () => set('a', 12, `type = 'hold.changed'`),
      'a',
      () => ['hold released has no entry that placed it'],
    ],
    [
      'a hold removed',
      () => `DELETE FROM hold WHERE hold_id = 'released'`,
      'a',
      () => ['hold released has entries but no row'],
    ],
    [
      'an active hold removed',
      () => `DELETE FROM hold WHERE hold_id = 'active'`,
      'a',
      () => ['the account holds 40, but its active holds have 0 left', 'hold active has entries but no row'],
    ],
    [
      'a hold made up',
      () =>
        `INSERT INTO hold SELECT (jsonb_populate_record(hold, '{"account_id":"c"}')).* FROM hold WHERE hold_id = 'active'`,
      'c',
      () => ['the account holds 0, but its active holds have 40 left', 'hold active has no entries'],
    ],
    [
      'a hold whose last entry says something else',
      () => set('a', 15, `hold_status = 'released'`),
      'a',
      () => ['hold expired is expired with 0 left, but its last entry says released with 0'],
    ],
    [
      'an entry given to another hold',
      () => set('a', 13, `hold_id = 'other'`),
      'a',
      () => [
        'hold other has entries but no row',
        'hold released is released with 0 left, but its last entry says active with 7',
        'hold released has 0 left, but its entries add up to 7',
      ],
    ],
    [
      'an amount of a leg altered, with all that follows from it',
      () =>
        `UPDATE ledger SET amount = amount + 1 WHERE account_id = 'c' AND version = 2;
         UPDATE ledger SET balance = balance + 1 WHERE account_id = 'c' AND version >= 2;
         UPDATE account SET balance = balance + 1 WHERE account_id = 'c'`,
      'a',
      () => [
        `the legs of transfer ${id('a', 3)} add up to 1`,
        `the reversal of version 3 records an original amount of 50, but the change moved 51`,
      ],
    ],
    [
      'a transfer without its other leg',
      () => set('b', 2, 'transfer_id = NULL'),
      'a',
      () => [
        `transfer ${id('a', 2)} has a single leg`,
        `the legs of transfer ${id('a', 2)} add up to -100`,
        'the reversal of version 2 records an original amount of 100, but the change moved 0',
        'version 2 moved 0, but its reversals add up to 45',
      ],
    ],
    [
      'a transfer that is not what was reversed',
      () => set('b', 2, 'transfer_id = NULL'),
      'b',
      () => [`transfer ${id('b', 5)} is not the opposite of ${id('a', 2)}, which it reverses (and 1 more)`],
    ],
    [
      'a transfer of three legs reversed in part',
      () =>
        set('a', 4, 'amount = 20, balance = balance - 10') +
        set('c', 3, 'amount = -40, balance = balance + 10') +
        `UPDATE ledger SET balance = balance - 10 WHERE account_id = 'a' AND version > 4;
         UPDATE outbox SET balance = balance - 10 WHERE account_id = 'a';
         UPDATE account SET balance = balance - 10 WHERE account_id = 'a';
         UPDATE account SET balance = balance + 10 WHERE account_id = 'c';` +
        setReversal('a', 3, 'reversed = 40'),
      'c',
      () => [`transfer ${id('c', 3)} is not the opposite of ${id('a', 3)}, which it reverses`],
    ],
    [
      'legs of different assets',
      () =>
        `UPDATE ledger SET asset = 'USD/2' WHERE account_id = 'c'; UPDATE account SET asset = 'USD/2' WHERE account_id = 'c'`,
      'a',
      () => [`the legs of transfer ${id('a', 3)} have different assets`],
    ],
    [
      'a transfer with more legs than there can be',
      () => `UPDATE ledger SET transfer_id = '${id('a', 3)}' WHERE account_id = 'c';
        INSERT INTO ledger SELECT (jsonb_populate_record(ledger, jsonb_build_object('account_id', 'x' || n, 'amount', 0))).*
        FROM ledger, generate_series(1, 2000) AS n WHERE account_id = 'c' AND version = 2`,
      'a',
      () => expect.arrayContaining([`transfer ${id('a', 3)} has more than 100 legs`]),
    ],
    [
      'a reversal in the same direction',
      () =>
        set('b', 8, 'amount = -4, balance = balance - 8') +
        set('b', 9, 'balance = balance - 8') +
        `UPDATE account SET balance = balance - 8 WHERE account_id = 'b'`,
      'b',
      () => ['a reversal of version 7 has the same sign as the change'],
    ],
    [
      'a leg too many',
      () => set('c', 1, `transfer_id = '${id('a', 11)}'`),
      'a',
      () => [`the legs of transfer ${id('a', 11)} add up to 1000`],
    ],
    [
      'a leg of a transfer that is none',
      () => set('c', 1, `transfer_id = 'nobody:1:abc'`),
      'c',
      () => ['version 1 belongs to transfer nobody:1:abc, which has no leg with that event id'],
    ],
    [
      'a leg with an id that is none',
      () => set('c', 1, `transfer_id = 'c:1:'`),
      'c',
      () => ['version 1 belongs to transfer c:1:, which has no leg with that event id'],
    ],
    [
      'a leg of another change than a transfer',
      () => set('c', 1, `transfer_id = '${id('b', 7)}'`),
      'c',
      () => [`version 1 belongs to transfer ${id('b', 7)}, which has no leg with that event id`],
    ],
    [
      'a transfer without the leg that names it',
      () => set('a', 11, 'transfer_id = NULL'),
      'b',
      () => [`version 9 belongs to transfer ${id('a', 11)}, which has no leg with that event id`],
    ],
    [
      'a transfer named by another leg',
      () => set('a', 11, `transfer_id = '${id('b', 9)}'`) + set('b', 9, `transfer_id = '${id('b', 9)}'`),
      'b',
      () => [`transfer ${id('b', 9)} is not named by its lowest debited leg`],
    ],
    [
      'a transfer named by a change of another epoch',
      () => set('a', 11, `transfer_id = 'a:11:abc'`) + set('b', 9, `transfer_id = 'a:11:abc'`),
      'a',
      () => ['version 11 belongs to transfer a:11:abc, which has no leg with that event id'],
    ],
    [
      'more reversed than is noted',
      () => setReversal('b', 7, 'reversed = 3'),
      'b',
      () => ['version 7 has 3 recorded as reversed, but its reversals add up to 4'],
    ],
    [
      'less of a transfer reversed than is noted',
      () => setReversal('a', 2, 'reversed = 100'),
      'a',
      () => ['version 2 has 100 recorded as reversed, but its reversals add up to 45'],
    ],
    [
      'less of a transfer of three legs reversed than is noted',
      () => setReversal('a', 3, 'reversed = 30'),
      'a',
      () => ['version 3 has 30 recorded as reversed, but its reversals add up to 50'],
    ],
    [
      'another original',
      () => setReversal('b', 7, 'original = 1000'),
      'b',
      () => ['the reversal of version 7 records an original amount of 1000, but the change moved 10'],
    ],
    [
      'a reversal that is not noted',
      () => `DELETE FROM reversal WHERE account_id = 'b'`,
      'b',
      () => [`version 8 reverses ${id('b', 7)}, but no reversal is recorded for it`],
    ],
    [
      'a reversal of a transfer that is not noted',
      () => `DELETE FROM reversal WHERE account_id = 'a' AND version = 2`,
      'a',
      () => [`version 5 reverses ${id('a', 2)}, but no reversal is recorded for it`],
    ],
    [
      'a reversal noted of nothing',
      () => `INSERT INTO reversal SELECT account_id, 77, epoch, 10, 4 FROM reversal WHERE account_id = 'b'`,
      'b',
      () => [
        'a reversal is recorded for version 77, which cannot be reversed',
        'version 77 has 4 recorded as reversed, but its reversals add up to 0',
      ],
    ],
    [
      'a reversal noted of a reversal',
      () => `UPDATE reversal SET version = 8 WHERE account_id = 'b'`,
      'b',
      () => [
        `version 8 reverses ${id('b', 7)}, but no reversal is recorded for it`,
        'a reversal is recorded for version 8, which cannot be reversed',
        'version 8 has 4 recorded as reversed, but its reversals add up to 0',
      ],
    ],
    [
      'a change that is said to reverse another',
      () => set('c', 1, `reverses = '${id('b', 7)}'`),
      'c',
      () => [`version 1 reverses ${id('b', 7)}, but no reversal is recorded for it`],
    ],
    [
      'a reversal made a change of its own',
      () => set('b', 8, 'reverses = NULL'),
      'b',
      () => ['version 7 has 4 recorded as reversed, but its reversals add up to 0'],
    ],
    [
      'more reversed than there was',
      () =>
        set('b', 8, 'amount = 14, balance = balance + 10') +
        set('b', 9, 'balance = balance + 10') +
        `UPDATE account SET balance = balance + 10 WHERE account_id = 'b';` +
        setReversal('b', 7, 'reversed = 14'),
      'b',
      () => ['version 7 moved 10, but its reversals add up to 14'],
    ],
    [
      'a leg of a reversal that reverses nothing',
      () => set('a', 6, 'reverses = NULL'),
      'b',
      () => [`the legs of transfer ${id('b', 6)} reverse different transfers`],
    ],
    [
      'a leg of the lowest amount there is',
      () => set('b', 5, 'amount = -9223372036854775808'),
      'b',
      () => expect.arrayContaining([expect.stringContaining(`the legs of transfer ${id('b', 5)} add up to -92`)]),
    ],
    [
      'a reversal of the lowest amount there is',
      () => set('b', 8, 'amount = -9223372036854775808'),
      'b',
      () => expect.arrayContaining(['a reversal of version 7 has the same sign as the change']),
    ],
    [
      'a change reversed of the lowest amount there is',
      () => set('b', 7, 'amount = -9223372036854775808'),
      'b',
      () => expect.arrayContaining(['the balance of version 7 is not the one before plus its amount']),
    ],
    [
      'a leg of the lowest amount in a transfer of three that was reversed',
      () => set('a', 3, 'amount = -9223372036854775808'),
      'a',
      () => expect.arrayContaining(['the balance of version 3 is not the one before plus its amount']),
    ],
    [
      'a reversal given to another account',
      () => set('b', 6, `account_id = 'c', version = 4`),
      'c',
      () =>
        expect.arrayContaining([`version 4 belongs to transfer ${id('b', 6)}, which has no leg with that event id`]),
    ],
  ])('is found and named: %s', async (_, damage, account, expected) => {
    await database.pool.query(damage());
    const found = await problems();
    expect(found).toHaveProperty(account);
    expect({ [account]: found[account] }).toEqual({ [account]: expected() });
  });
});

describe('damage', () => {
  let database: Database;

  beforeAll(async () => {
    database = await createDatabase();
    await disarm(database.pool);
  });
  beforeEach(async () => {
    await database.pool.query('TRUNCATE account, idempotency_key, outbox, ledger');
    await insertAccounts(database, 'good', 'bad');
    for (let count = 0; count < 5; count += 1) {
      await applyDirectly(database.pool, 'good', 10);
      await applyDirectly(database.pool, 'bad', 10);
    }
    // Versions 0 to 3 are in the ledger, 3 to 5 in the outbox: 3 in both, as between recording and
    // removal.
    await database.pool.query(
      `INSERT INTO ledger (${CHANGE_COLUMN_NAMES}) SELECT ${CHANGE_COLUMN_NAMES} FROM outbox WHERE version <= 3`,
    );
    await database.pool.query('DELETE FROM outbox WHERE version < 3');
  });
  afterAll(cleanUp);

  it('is not reported where there is none', async () => {
    expect(await verified(database)).toEqual({
      accounts: 2,
      ledgerEntries: 8,
      pendingChanges: 4,
      unchainedEntries: 8,
      offendingAccounts: 0,
      offenders: [],
    });
  });

  it.each([
    ['a lost outbox row', `DELETE FROM outbox WHERE account_id = 'bad' AND version = 4`, 'version 4 is missing'],
    [
      'a lost last change',
      `DELETE FROM outbox WHERE account_id = 'bad' AND version = 5`,
      'the account is at version 5, but its last entry at 4',
    ],
    ['a lost opening', `DELETE FROM ledger WHERE account_id = 'bad' AND version = 0`, 'version 0 is missing'],
    ['a lost middle entry', `DELETE FROM ledger WHERE account_id = 'bad' AND version = 2`, 'version 2 is missing'],
    [
      'all entries lost',
      `DELETE FROM ledger WHERE account_id = 'bad'; DELETE FROM outbox WHERE account_id = 'bad'`,
      'has no entries, not even of its opening',
    ],
    [
      'a change that waits twice',
      `INSERT INTO outbox (position, ${CHANGE_COLUMN_NAMES}) SELECT position + 67108864, ${CHANGE_COLUMN_NAMES} FROM outbox
       WHERE account_id = 'bad' AND version = 4`,
      'version 4 exists twice',
    ],
    [
      'an altered amount',
      `UPDATE ledger SET amount = 11 WHERE account_id = 'bad' AND version = 2`,
      'the balance of version 2 is not the one before plus its amount',
    ],
    [
      'an altered balance',
      `UPDATE ledger SET balance = 21 WHERE account_id = 'bad' AND version = 2`,
      'the balance of version 2 is not the one before plus its amount',
    ],
    [
      'an altered balance of a change on its way',
      `UPDATE outbox SET balance = 41 WHERE account_id = 'bad' AND version = 4`,
      'the balance of version 4 is not the one before plus its amount',
    ],
    [
      'an opening with a balance',
      `UPDATE ledger SET balance = 1 WHERE account_id = 'bad' AND version = 0`,
      'the balance of version 0 is not the one before plus its amount',
    ],
    [
      'an altered change of what is held',
      `UPDATE ledger SET held_change = 1 WHERE account_id = 'bad' AND version = 2`,
      'the held amount of version 2 is not the one before plus its change',
    ],
    [
      'an altered sum of what is held',
      `UPDATE outbox SET held = 1 WHERE account_id = 'bad' AND version = 5`,
      'the held amount of version 5 is not the one before plus its change',
    ],
    [
      'held changes that the account does not know of',
      `UPDATE outbox SET held = 1, held_change = 1 WHERE account_id = 'bad' AND version = 5`,
      'the account holds 0, but the changes of its entries add up to 1',
    ],
    [
      'an epoch that falls',
      `UPDATE ledger SET epoch = epoch - 1 WHERE account_id = 'bad' AND version = 2;
       UPDATE ledger SET previous_epoch = previous_epoch - 1 WHERE account_id = 'bad' AND version = 3;
       UPDATE outbox SET previous_epoch = previous_epoch - 1 WHERE account_id = 'bad' AND version = 3`,
      'the epoch of version 2 does not follow the one before',
    ],
    [
      'an epoch that is not the previous one of the next',
      `UPDATE ledger SET previous_epoch = previous_epoch + 1 WHERE account_id = 'bad' AND version = 2`,
      'the epoch of version 2 does not follow the one before',
    ],
    [
      'an opening that follows something',
      `UPDATE ledger SET previous_epoch = epoch WHERE account_id = 'bad' AND version = 0`,
      'the epoch of version 0 does not follow the one before',
    ],
    [
      'a change that follows nothing',
      `UPDATE outbox SET previous_epoch = NULL WHERE account_id = 'bad' AND version = 4`,
      'the epoch of version 4 does not follow the one before',
    ],
    [
      'an entry too many',
      `INSERT INTO ledger SELECT (jsonb_populate_record(ledger, '{"version":6,"balance":60}')).* FROM ledger
       WHERE account_id = 'bad' AND version = 3`,
      'the account is at version 5, but its last entry at 6',
    ],
    [
      'a changed account balance',
      `UPDATE account SET balance = 51 WHERE account_id = 'bad'`,
      'the balance is 51, but the amounts of the entries add up to 50',
    ],
    [
      'a changed account version',
      `UPDATE account SET version = 6 WHERE account_id = 'bad'`,
      'the account is at version 6, but its last entry at 5',
    ],
    [
      'a changed sum of what the account holds',
      `UPDATE account SET held = 3 WHERE account_id = 'bad'`,
      'the account holds 3, but the changes of its entries add up to 0',
    ],
    [
      'a changed asset',
      `UPDATE account SET asset = 'USD/2' WHERE account_id = 'bad'`,
      'the asset differs from the entries',
    ],
    [
      'an entry of another asset',
      `UPDATE outbox SET asset = 'USD/2' WHERE account_id = 'bad' AND version = 4`,
      'the asset differs from the entries',
    ],
    ...['overdraft_limit = 1', 'max_balance = 1000', 'max_balance = 0', `status = 'frozen'`, `status = 'closed'`].map(
      (change) => [
        `a changed account: ${change}`,
        `UPDATE account SET ${change} WHERE account_id = 'bad'`,
        'the limits or the status differ from version 0, which set them last',
      ],
    ),
    [
      'limits that no entry gives',
      `UPDATE ledger SET status = NULL WHERE account_id = 'bad' AND version = 0`,
      'no entry sets the limits',
    ],
    [
      'other limits given by an entry',
      `UPDATE outbox SET overdraft_limit = 5, status = 'open' WHERE account_id = 'bad' AND version = 5`,
      'the limits or the status differ from version 5, which set them last',
    ],
    ['a lost account', `DELETE FROM account WHERE account_id = 'bad'`, 'has entries but no account row'],
  ])('is found and named: %s', async (_, damage, problem) => {
    await database.pool.query(damage);
    const found = await verified(database);
    expect(found.offendingAccounts).toBe(1);
    expect(found.offenders).toEqual([{ accountId: 'bad', problems: expect.arrayContaining([problem]) }]);
    expect((await verifiedAlone(database, 'bad'))?.problems).toEqual(found.offenders[0]?.problems);
  });

  it('is found and named: a changed epoch of the account', async () => {
    await database.pool.query(`UPDATE account SET epoch = epoch + 1 WHERE account_id = 'bad'`);
    const [{ epoch }] = (await database.pool.query(`SELECT epoch FROM account WHERE account_id = 'bad'`)).rows;
    const [offender] = (await verified(database)).offenders;
    expect(offender).toEqual({
      accountId: 'bad',
      problems: [`the account has epoch ${epoch}, but its last entry has ${epoch - 1}`],
    });
  });

  it.each([
    ['created_at', '2026-01-01T00:00:00Z', /^the account was opened at 2026-01-01 .*, but its first entry says 20/],
    [
      'updated_at',
      '2100-01-01T00:00:00Z',
      /^the account was last changed at 2100-01-01 .*, but its last entry says 20/,
    ],
  ])('is found and named: a changed %s of the account', async (column, time, problem) => {
    await database.pool.query(`UPDATE account SET ${column} = $1 WHERE account_id = 'bad'`, [time]);
    const problems = [expect.stringMatching(problem)];
    expect((await verified(database)).offenders).toEqual([{ accountId: 'bad', problems }]);
    expect((await verifiedAlone(database, 'bad'))?.problems).toEqual(problems);
  });

  it('is not reported of a history with later epochs, limits that changed and an account that closed', async () => {
    // All it has but the number and the timeline.
    await database.pool.query(`
      INSERT INTO epoch SELECT (jsonb_populate_record(last, jsonb_build_object('epoch', last.epoch + 1, 'timeline', 'later'))).*
      FROM epoch AS last`);
    await applyDirectly(database.pool, 'bad', -40);
    for (const change of [{ maxBalance: 100 }, { overdraftLimit: 5, maxBalance: null }]) {
      await database.pool.query(`SELECT change_account('bad', $1, NULL, NULL)`, [change]);
    }
    await applyDirectly(database.pool, 'bad', -10);
    await database.pool.query(`SELECT change_account('bad', '{"status":"closed"}', NULL, NULL)`);
    expect(await verified(database)).toMatchObject({ pendingChanges: 9, offenders: [] });
    const { rows } = await database.pool.query(
      `SELECT count(DISTINCT epoch) AS epochs, max(version) AS version FROM outbox WHERE account_id = 'bad'`,
    );
    expect(rows).toEqual([{ epochs: 2, version: 10 }]);
  });

  it.each(CHANGE_COLUMNS.slice(2).map(([column, type]) => [column, type] as const))(
    'is found where outbox and ledger differ: %s',
    async (column, type) => {
      const other = { text: `'other'`, bigint: '4711', timestamptz: `'2026-11-25T00:00:00Z'` };
      await database.pool.query(
        `UPDATE ledger SET ${column} = ${other[type]} WHERE account_id = 'bad' AND version = 3`,
      );
      const { offenders } = await verified(database);
      expect(offenders).toEqual([
        { accountId: 'bad', problems: expect.arrayContaining(['version 3 differs between outbox and ledger']) },
      ]);
    },
  );

  it('names the first twenty and counts all', async () => {
    await database.pool.query(
      `INSERT INTO account (account_id, epoch, created_at, updated_at) SELECT 'x' || number, 1, now(), now() FROM generate_series(1, 30) AS number`,
    );
    const found = await verified(database);
    expect(found.offendingAccounts).toBe(30);
    expect(found.offenders).toHaveLength(20);
  });

  it('is found in each of the steps, and between them, in the order of the accounts', async () => {
    await database.pool.query(
      `SELECT open_account('x' || lpad(number::text, 6, '0'), 'UNIT', 0, NULL, NULL, NULL) FROM generate_series(1, 120000) AS number`,
    );
    await database.pool.query(`UPDATE account SET balance = 1 WHERE account_id IN ('x000001', 'x050000', 'x110000')`);
    await database.pool.query(
      `INSERT INTO ledger SELECT (jsonb_populate_record(ledger, jsonb_build_object('account_id', id))).*
       FROM ledger, unnest(ARRAY['a', 'x049999b', 'x050000a', 'y']) AS id WHERE ledger.account_id = 'good' AND version = 0`,
    );
    const steps: number[] = [];
    const client = await database.pool.connect();
    let found: Verification;
    try {
      found = await verify(client, ({ accounts }) => steps.push(accounts));
    } finally {
      client.release();
    }
    expect(steps).toHaveLength(3);
    expect(steps.at(-1)).toBe(found.accounts);
    expect(found.offenders.map(({ accountId }) => accountId)).toEqual(
      ['a', 'x000001', 'x049999b', 'x050000', 'x050000a', 'x110000', 'y'], // byte order
    );
    expect(found.offendingAccounts).toBe(7);
    const known = await database.pool.query('SELECT count(*) AS rows FROM account');
    expect(found.accounts).toBe(known.rows[0].rows + 4); // and those that have entries only
  });

  const start = (...args: string[]) => startCommand(['verify', ...args], { DATABASE_URL: database.url });

  it.each([
    [0, '', /verified/],
    [1, `UPDATE account SET balance = 51 WHERE account_id = 'bad'`, /bad: the balance is 51.*\n.*NOT verified/],
  ])('ends the command with exit code %i', async (code, damage, printed) => {
    if (damage) await database.pool.query(damage);
    expect(await start().whenEnded).toMatchObject({ code, out: expect.stringMatching(printed) });
    const json = await start('--json').whenEnded;
    expect(json.code).toBe(code);
    const { verified: isVerified, accounts, offenders } = JSON.parse(json.out);
    expect({ isVerified, accounts, offenders: offenders.length }).toEqual({
      isVerified: code === 0,
      accounts: 2,
      offenders: code,
    });
  });

  it('is reported as not proven when the command is interrupted, and the server ends with it', async () => {
    const blocking = await database.pool.connect();
    try {
      await blocking.query('BEGIN; LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE');
      const { child, output, whenEnded } = start();
      await until('it says how far it is', () => /^5 s: 0 accounts with 0 of about/m.test(output.err));
      child.kill('SIGINT');
      expect(await whenEnded).toEqual({
        ...{ code: 130, out: '' },
        err: expect.stringContaining('Interrupted: nothing was proven.'),
      });
      await until('its statement has ended', async () => {
        // On another connection: a transaction sees the activity of its first look at it.
        const { rows } = await database.pool.query(
          `SELECT FROM pg_stat_activity WHERE application_name = 'highload-balance verify' AND datname = current_database()`,
        );
        return rows.length === 0;
      });
    } finally {
      await blocking.query('ROLLBACK');
      blocking.release();
    }
  });
});

describe('of an account that pays many', () => {
  afterAll(cleanUp);

  it('reads the legs of its transfers elsewhere, and of no others, and over HTTP so many at most', async () => {
    const database = await createDatabase();
    const { url } = await startApiHere(database, createBroker(), { RELAY: 'off' });
    await insertAccounts(database, 'payer', 'shop', 'tax', 'other');
    await send(url, 'POST', '/v1/balance-updates', { accountId: 'payer', amount: 100 });
    await send(url, 'POST', '/v1/balance-updates', { accountId: 'other', amount: 100 });
    const legs = [
      { accountId: 'payer', amount: -3 },
      { accountId: 'shop', amount: 2 },
      { accountId: 'tax', amount: 1 },
    ];
    const { body: paid } = await send(url, 'POST', '/v1/transfers', { legs });
    await send(url, 'POST', '/v1/transfers', { from: 'other', to: 'payer', amount: 5 });
    const count = async (id: string) => countLegsElsewhere(database.pool, id, 100);
    expect([await count('payer'), await count('shop'), await count('other')]).toEqual([3, 0, 2]);
    expect(await countLegsElsewhere(database.pool, 'payer', 2)).toBe(2);
    await send(url, 'POST', '/v1/reversals', { of: paid.transferId });
    expect([await count('payer'), await count('shop')]).toEqual([6, 3]); // who reverses, and whose transfer it was
    expect((await verifiedAlone(database, 'payer'))?.problems).toEqual([]);

    // 2,001 transfers of 100 legs, as the worker would have recorded them.
    await database.pool.query(`
      INSERT INTO ledger (account_id, version, epoch, previous_epoch, amount, held_change, balance, held, created_at, type, asset, transfer_id)
      SELECT CASE leg WHEN 0 THEN 'many' ELSE 'many:' || leg END, transfer, 1, 1, CASE leg WHEN 0 THEN -99 ELSE 1 END, 0, 0, 0, now(),
             CASE leg WHEN 0 THEN 'balance.debited' ELSE 'balance.credited' END, 'UNIT', 'many:' || transfer || ':1'
      FROM generate_series(1, 2001) AS transfer CROSS JOIN generate_series(0, 99) AS leg`);
    await insertAccounts(database, 'many', 'many:1');
    await database.pool.query("UPDATE account SET version = 2001 WHERE account_id LIKE 'many%'");
    const refused = await send(url, 'GET', '/v1/accounts/many/verification');
    expect(refused).toMatchObject({
      status: 400,
      body: { code: 'invalid_request', detail: expect.stringMatching(/200000 legs.*npm run verify/) },
    });
    const receiver = await send(url, 'GET', '/v1/accounts/many:1/verification');
    expect(receiver).toMatchObject({ status: 200, body: { verified: false, ledgerEntries: 2001 } });
  });
});

it('sees what the ledger holds of an account without a name', async () => {
  const database = await createDatabase();
  await insertAccounts(database, 'a');
  const columns = CHANGE_COLUMN_NAMES.replace('account_id', "''");
  await database.pool.query(`INSERT INTO ledger (${CHANGE_COLUMN_NAMES}) SELECT ${columns} FROM outbox`);
  expect(await verified(database)).toMatchObject({ offenders: [{ accountId: '' }] });
});
