// What a superuser of the database changes, verify finds and names: with the hash chains alone, or,
// where they were rewritten too, with heads that were kept elsewhere.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { listChainHeads } from '../../src/shared/chain-head.ts';
import { CHANGE_COLUMNS, type Change, eventId } from '../../src/shared/change.ts';
import type { ChainHead } from '../../src/shared/contract.ts';
import { findBrokenHeads } from '../../src/shared/kept-heads.ts';
import { verifyAccount } from '../../src/shared/verification.ts';
import { runCommand } from '../support/commands.ts';
import {
  cleanUp,
  createBroker,
  createDatabase,
  createFolder,
  type Database,
  send,
  startApiHere,
  verified,
} from '../support/harness.ts';
import { changeRow, disarm, insertEntries, LEDGER_EPOCH } from '../support/ledger-rows.ts';
import { expectSameSinceOpenings } from '../support/since-openings.ts';

let database: Database;

beforeAll(async () => {
  database = await createDatabase();
  await disarm(database.pool);
});
afterAll(cleanUp);

const LAST = 7;

/** Eight entries with most of what an entry can have, most of it in version 4. */
function history(account: string): Change[] {
  const shop = { actor: 'shop', createdAt: new Date('2026-11-23T20:00:02.000Z') };
  const limits = { overdraftLimit: 7, maxBalance: 1000, status: 'frozen' as const };
  const rest: Partial<Change>[] = [
    {},
    { amount: 10, balance: 10, reference: 'order 1' },
    { ...shop, amount: 10, balance: 20, reference: `order 2 of ${account}` },
    { ...shop, amount: 10, balance: 30 },
    {
      ...{ ...shop, type: 'hold.placed', amount: 0, heldChange: 5, balance: 30, held: 5, reference: 'order 4' },
      metadata: '{"a":"b"}',
      ...{ holdId: 'h', holdStatus: 'active', holdRemaining: 5, holdExpiresAt: new Date('2026-12-23T20:00:00.000Z') },
    },
    { ...shop, ...limits, type: 'account.changed', amount: 0, balance: 30, held: 5 },
    { ...shop, amount: 10, balance: 40, held: 5, reference: 'order 6' },
    { ...shop, amount: 10, balance: 50, held: 5, reference: 'order 7' },
  ];
  return rest.map((members, version) => changeRow(account, version, members));
}

const idOf = (accountId: string, version: number) => eventId({ accountId, version, epoch: LEDGER_EPOCH });

/** What the others lack: a transfer from x to y, and in their version 3 its reversal. */
async function insertTransfer(): Promise<void> {
  const transfer = { transferId: idOf('x', 2) };
  const reversal = { transferId: idOf('y', 3), reverses: idOf('x', 2) };
  const debit = { type: 'balance.debited' as const, amount: -5 };
  await insertEntries(database.pool, [
    ...[changeRow('x', 0), changeRow('x', 1, { amount: 10, balance: 10 })],
    ...[changeRow('x', 2, { ...debit, balance: 5, ...transfer })],
    ...[changeRow('x', 3, { amount: 5, balance: 10, ...reversal })],
    ...[changeRow('y', 0), changeRow('y', 1, { amount: 10, balance: 10 })],
    ...[changeRow('y', 2, { amount: 5, balance: 15, ...transfer })],
    ...[changeRow('y', 3, { ...debit, balance: 10, ...reversal })],
  ]);
  await database.pool.query(
    `INSERT INTO account (account_id, balance, version, epoch, created_at, updated_at)
     SELECT account_id, 10, 3, ${LEDGER_EPOCH}, min(created_at), max(created_at) FROM ledger
     WHERE account_id IN ('x', 'y') GROUP BY account_id`,
  );
  await database.pool.query(`INSERT INTO reversal VALUES ('x', 2, ${LEDGER_EPOCH}, 5, 5)`);
  for (const account of ['x', 'y']) {
    for (const entries of [3, 1])
      await database.pool.query(`SELECT extend_ledger_chain(ARRAY[$1], $2)`, [account, entries]);
  }
}

/**
 * Two accounts, each in segments of the versions 0 to 2, 3 to 5 and 6; the last entry is not
 * chained yet.
 */
beforeEach(async () => {
  await database.pool.query('TRUNCATE account, ledger, ledger_chain, hold, reversal');
  for (const account of ['good', 'bad']) {
    await insertEntries(database.pool, history(account));
    for (const entries of [3, 3, 1])
      await database.pool.query(`SELECT extend_ledger_chain(ARRAY[$1], $2)`, [account, entries]);
    await database.pool.query(
      `INSERT INTO account (account_id, balance, held, version, epoch, overdraft_limit, max_balance, status, created_at, updated_at)
       SELECT $1::text, 50, 5, ${LAST}, ${LEDGER_EPOCH}, 7, 1000, 'frozen', min(created_at), max(created_at)
       FROM ledger WHERE account_id = $1`,
      [account],
    );
    await database.pool.query(
      `INSERT INTO hold (account_id, hold_id, amount, remaining, expires_at, client, fingerprint, reference, metadata, created_at, updated_at)
       SELECT account_id, hold_id, 5, 5, hold_expires_at, actor, decode(repeat('00', 16), 'hex'), reference, metadata, created_at, created_at
       FROM ledger WHERE account_id = $1 AND type = 'hold.placed'`,
      [account],
    );
  }
});

const inBad = (version: number) => `account_id = 'bad' AND version = ${version}`;
const endsAt = (version: number) => `account_id = 'bad' AND last_version = ${version}`;
const set = (version: number, change: string) => `UPDATE ledger SET ${change} WHERE ${inBad(version)};`;
const forget = (version: number) => `DELETE FROM ledger WHERE ${inBad(version)};`;
const forgetHash = (version: number) => `DELETE FROM ledger_chain WHERE ${endsAt(version)};`;
const rehash = (version: number) => `UPDATE ledger_chain SET hash = sha256('forged') WHERE ${endsAt(version)};`;
const setSegment = (version: number, change: string) => `UPDATE ledger_chain SET ${change} WHERE ${endsAt(version)};`;
const move = (from: number, to: number) => set(from, `version = ${to}`);

const MISSING = (version: number) => `version ${version} is missing`;
const SHORT = 'the balance is 50, but the amounts of the entries add up to 40';
const CHANGED = (versions: string) => `the entries do not match the hash: ${versions}`;
const REMOVED = (versions: string) => `entries were removed: ${versions}`;
const HASH_CHANGED = (versions: string) => `the hash was changed, but the entries are intact: ${versions}`;
const HASH_REMOVED = (versions: string) => `the hash was removed: ${versions}`;
const OVERLAP = (versions: string) => `the segment overlaps the one before: ${versions}`;
const ALL = 'versions 0 to 2, versions 3 to 5, version 6';

it('reports what is not chained yet as a number, and nothing else where nothing was changed', async () => {
  expect(await verified(database)).toEqual({
    accounts: 2,
    ledgerEntries: 16,
    pendingChanges: 0,
    unchainedEntries: 2,
    offendingAccounts: 0,
    offenders: [],
  });
});

/** What it finds by account, and of a lone account as well. */
async function expectFound(problems: Record<string, unknown>): Promise<void> {
  const found = await verified(database);
  await expectSameSinceOpenings(database, found);
  const expected = Object.entries(problems).map(([accountId, named]) => ({ accountId, problems: named }));
  expect(found.offenders).toEqual(expected);
  expect(found.offendingAccounts).toBe(expected.length);
  const client = await database.pool.connect();
  try {
    for (const { accountId, problems: named } of found.offenders) {
      expect((await verifyAccount(client, accountId))?.problems).toEqual(named);
    }
  } finally {
    client.release();
  }
}

describe('is found, and nothing but it named', () => {
  it.each([
    ['the first entry altered', set(0, `actor = 'x'`), [CHANGED('versions 0 to 2')]],
    ['an entry at the start of a segment altered', set(3, `reference = 'x'`), [CHANGED('versions 3 to 5')]],
    [
      'an entry in the middle of a segment altered',
      set(4, `reference = 'x'`),
      ['hold h has another reference than the entry that placed it', CHANGED('versions 3 to 5')],
    ],
    ['an entry at the end of a segment altered', set(5, `reference = 'x'`), [CHANGED('versions 3 to 5')]],
    ['the last chained entry altered', set(6, `reference = 'x'`), [CHANGED('version 6')]],
    [
      'an amount moved from one entry to the next',
      set(1, 'amount = 15, balance = 15') + set(2, 'amount = 5'),
      [CHANGED('versions 0 to 2')],
    ],
    [
      'an amount moved from one segment to the next',
      set(2, 'amount = 15, balance = 25') + set(3, 'amount = 5'),
      [CHANGED('versions 0 to 2, versions 3 to 5')],
    ],
    [
      'a time altered by a millisecond',
      set(2, `created_at = created_at + interval '1 ms'`),
      [CHANGED('versions 0 to 2')],
    ],
    ['a time made infinite', set(2, `created_at = 'infinity'`), [CHANGED('versions 0 to 2')]],
    ['an empty reference where there was none', set(3, `reference = ''`), [CHANGED('versions 3 to 5')]],
    ['no reference where there was one', set(2, 'reference = NULL'), [CHANGED('versions 0 to 2')]],
    ['an empty actor where there was none', set(1, `actor = ''`), [CHANGED('versions 0 to 2')]],
    ['no actor where there was one', set(2, 'actor = NULL'), [CHANGED('versions 0 to 2')]],
    ['a reference made the actor', set(6, `reference = 'shop', actor = 'order 6'`), [CHANGED('version 6')]],
    [
      'an entry hidden in the text of another',
      set(1, `reference = 'order 1",null],[2,"x'`) + set(2, `reference = NULL`),
      [CHANGED('versions 0 to 2')],
    ],
    ['a null made its name', set(3, `reference = 'null'`), [CHANGED('versions 3 to 5')]],
    [
      'two entries swapped',
      move(1, 1001) + move(2, 1) + move(1001, 2) + set(1, 'balance = 10') + set(2, 'balance = 20'),
      [CHANGED('versions 0 to 2')],
    ],
    [
      'two entries of two segments swapped',
      move(2, 1002) + move(3, 2) + move(1002, 3) + set(2, 'balance = 20') + set(3, 'balance = 30'),
      [CHANGED('versions 0 to 2, versions 3 to 5')],
    ],
    [
      'all entries altered',
      `UPDATE ledger SET actor = 'x' WHERE account_id = 'bad'`,
      ['hold h is of another client than the entry that placed it', CHANGED(ALL)],
    ],
    ['an entry at the start of a segment removed', forget(3), [MISSING(3), SHORT, REMOVED('versions 3 to 5')]],
    ['an entry in the middle of a segment removed', forget(1), [MISSING(1), SHORT, REMOVED('versions 0 to 2')]],
    ['an entry at the end of a segment removed', forget(2), [MISSING(2), SHORT, REMOVED('versions 0 to 2')]],
    ['the opening removed', forget(0), [MISSING(0), REMOVED('versions 0 to 2')]],
    ['a whole segment removed, not its hash', forget(6), [MISSING(6), SHORT, REMOVED('version 6')]],
    [
      'an entry and its hash removed',
      forget(6) + forgetHash(6),
      [MISSING(6), SHORT], // nothing follows that would say that there was a hash
    ],
    [
      'a segment and its entries removed',
      forget(3) + forget(4) + forget(5) + forgetHash(5),
      expect.arrayContaining([MISSING(3), HASH_REMOVED('versions 3 to 5')]),
    ],
    [
      'a history given to another account',
      `DELETE FROM ledger WHERE account_id = 'bad'; DELETE FROM ledger_chain WHERE account_id = 'bad';
       INSERT INTO ledger SELECT (jsonb_populate_record(ledger, '{"account_id":"bad"}')).* FROM ledger WHERE account_id = 'good';
       INSERT INTO ledger_chain SELECT 'bad', first_version, last_version, hash FROM ledger_chain WHERE account_id = 'good'`,
      [CHANGED(ALL)],
    ],
    [
      'an entry inserted, and those after it given new numbers',
      [7, 6, 5, 4].map((version) => move(version, version + 1)).join('') +
        `INSERT INTO ledger SELECT (jsonb_populate_record(ledger, '{"version":4,"amount":1,"balance":31}')).* FROM ledger WHERE ${inBad(3)};
         UPDATE ledger SET balance = balance + 1 WHERE account_id = 'bad' AND version > 4;
         UPDATE account SET version = 8, balance = 51 WHERE account_id = 'bad'`,
      [CHANGED('versions 3 to 5, version 6')],
    ],
    [
      'an entry taken out, and those after it given new numbers',
      forget(3) +
        [4, 5, 6, 7].map((version) => move(version, version - 1)).join('') +
        `UPDATE ledger SET balance = balance - 10 WHERE account_id = 'bad' AND version > 2;
         UPDATE account SET version = 6, balance = 40 WHERE account_id = 'bad'`,
      [CHANGED('versions 3 to 5, version 6')],
    ],
    [
      'the newest entries removed, and the account set back',
      `DELETE FROM ledger WHERE account_id = 'bad' AND version > 4;
       UPDATE account SET version = 4, balance = 30, overdraft_limit = 0, max_balance = NULL, status = 'open' WHERE account_id = 'bad'`,
      [REMOVED('versions 3 to 5, version 6')],
    ],
    ['the first hash changed', rehash(2), [HASH_CHANGED('versions 0 to 2')]],
    ['a middle hash changed', rehash(5), [HASH_CHANGED('versions 3 to 5')]],
    ['the last hash changed', rehash(6), [CHANGED('version 6')]], // nothing follows that would distinguish it from a changed entry
    ['the first hash removed', forgetHash(2), [HASH_REMOVED('versions 0 to 2')]],
    ['a middle hash removed', forgetHash(5), [HASH_REMOVED('versions 3 to 5')]],
    ['hashes in sequence removed', forgetHash(2) + forgetHash(5), [HASH_REMOVED('versions 0 to 5')]],
    ['a segment that begins later', setSegment(5, 'first_version = 4'), [HASH_REMOVED('version 3')]],
    ['a segment that begins earlier', setSegment(5, 'first_version = 2'), [OVERLAP('versions 2 to 5')]],
    ['a first segment that begins later', setSegment(2, 'first_version = 1'), [HASH_REMOVED('version 0')]],
    ['a first segment that begins earlier', setSegment(2, 'first_version = -1'), [OVERLAP('versions -1 to 2')]],
    [
      'a segment that ends earlier',
      setSegment(5, 'last_version = 4'),
      [CHANGED('versions 3 to 4'), HASH_REMOVED('version 5')],
    ],
    [
      'a boundary moved',
      setSegment(5, 'last_version = 4') + setSegment(6, 'first_version = 5'),
      [CHANGED('versions 3 to 4, versions 5 to 6')],
    ],
    [
      'a segment given to another account',
      `DELETE FROM ledger_chain WHERE ${endsAt(5)};
       INSERT INTO ledger_chain SELECT 'bad', first_version, last_version, hash FROM ledger_chain WHERE account_id = 'good' AND last_version = 5`,
      [HASH_CHANGED('versions 3 to 5')],
    ],
    ['two segments made one', forgetHash(2) + setSegment(5, 'first_version = 0'), [CHANGED('versions 0 to 5')]],
    [
      'a segment too many',
      `INSERT INTO ledger_chain VALUES ('bad', 8, 8, sha256('forged'))`,
      [HASH_REMOVED('version 7')],
    ],
    [
      'a segment of entries that are not there',
      `INSERT INTO ledger_chain VALUES ('bad', 7, 8, sha256('forged'))`,
      [REMOVED('versions 7 to 8')],
    ],
    [
      'a segment that is longer than any',
      `INSERT INTO ledger_chain VALUES ('bad', 7, 2007, sha256('forged'))`,
      ['the segment is longer than allowed: versions 7 to 2007'],
    ],
    [
      'an entry of the tail hashed by someone else',
      `INSERT INTO ledger_chain VALUES ('bad', 7, 7, sha256('forged'))`,
      [CHANGED('version 7')],
    ],
    [
      'a whole account removed but for its hashes',
      `DELETE FROM account WHERE account_id = 'bad'; DELETE FROM ledger WHERE account_id = 'bad'`,
      ['has entries but no account row', 'hold h has no entries', REMOVED(ALL)],
    ],
  ])('%s', async (_, damage, problems) => {
    await database.pool.query(damage);
    await expectFound({ bad: problems });
  });

  it('an entry exchanged with one of another account', async () => {
    await database.pool.query(`
      UPDATE ledger SET account_id = 'away' WHERE ${inBad(2)};
      UPDATE ledger SET account_id = 'bad' WHERE account_id = 'good' AND version = 2;
      UPDATE ledger SET account_id = 'good' WHERE account_id = 'away'`);
    await expectFound({ bad: [CHANGED('versions 0 to 2')], good: [CHANGED('versions 0 to 2')] });
  });

  it('an entry moved to another account', async () => {
    await database.pool.query(`UPDATE ledger SET account_id = 'good', version = 8 WHERE ${inBad(4)}`);
    await expectFound({
      bad: expect.arrayContaining([MISSING(4), REMOVED('versions 3 to 5')]),
      good: expect.arrayContaining(['the account is at version 7, but its last entry at 8']),
    });
  });
});

describe('of holds, transfers and reversals is found, also of an account alone,', () => {
  beforeEach(insertTransfer);

  it.each([
    [
      'a hold with less left',
      `UPDATE hold SET remaining = 4 WHERE account_id = 'bad'`,
      {
        bad: [
          'the account holds 5, but its active holds have 4 left',
          'hold h is active with 4 left, but its last entry says active with 5',
          'hold h has 4 left, but its entries add up to 5',
        ],
      },
    ],
    [
      'a hold removed',
      `DELETE FROM hold WHERE account_id = 'bad'`,
      { bad: ['the account holds 5, but its active holds have 0 left', 'hold h has entries but no row'] },
    ],
    [
      'a hold placed by another client',
      `UPDATE hold SET client = 'eve' WHERE account_id = 'bad'`,
      { bad: ['hold h is of another client than the entry that placed it'] },
    ],
    [
      'a hold placed by nobody',
      `UPDATE hold SET client = '' WHERE account_id = 'bad'`,
      { bad: ['hold h is of another client than the entry that placed it'] },
    ],
    [
      'a hold with nothing left of what was said of it',
      `UPDATE hold SET reference = NULL, metadata = NULL WHERE account_id = 'bad'`,
      {
        bad: [
          'hold h has another reference than the entry that placed it',
          'hold h has other metadata than the entry that placed it',
        ],
      },
    ],
    [
      'a leg removed with its account',
      ['account', 'ledger', 'ledger_chain'].map((table) => `DELETE FROM ${table} WHERE account_id = 'y'`).join(';'),
      {
        x: [
          `transfer ${idOf('x', 2)} has a single leg`,
          `the legs of transfer ${idOf('x', 2)} add up to -5`,
          `version 3 belongs to transfer ${idOf('y', 3)}, which has no leg with that event id`,
          'the reversal of version 2 records an original amount of 5, but the change moved 0',
          'version 2 moved 0, but its reversals add up to 5',
        ],
      },
    ],
    [
      'a reversal forgotten, so that there can be another',
      'DELETE FROM reversal',
      { x: [`version 3 reverses ${idOf('x', 2)}, but no reversal is recorded for it`] },
    ],
    [
      'a reversal noted as less, so that there can be more',
      'UPDATE reversal SET reversed = 1',
      { x: ['version 2 has 1 recorded as reversed, but its reversals add up to 5'] },
    ],
  ])('%s', async (_, damage, problems) => {
    await database.pool.query(damage);
    await expectFound(problems);
  });
});

describe('is found in each column of an entry that has it', () => {
  const other = { text: `'other'`, bigint: '4711', timestamptz: `'2026-11-25T00:00:00Z'` };
  /** Of each kind of column, its entry: version 4 of `bad` has what is not in these. */
  const limits = ['overdraft_limit', 'max_balance', 'status'];
  const ofTransfers = ['transfer_id', 'reverses'];
  const columns = CHANGE_COLUMNS.filter(([column]) => column !== 'account_id');

  beforeEach(insertTransfer);

  /** The entry that has it is changed, and found among whatever else does not fit any more. */
  async function expectFoundIn(column: string, value: string): Promise<void> {
    if (ofTransfers.includes(column)) {
      await database.pool.query(`UPDATE ledger SET ${column} = ${value} WHERE account_id = 'y' AND version = 3`);
      const { offenders } = await verified(database);
      expect(offenders.filter(({ accountId }) => accountId !== 'x')).toEqual([
        { accountId: 'y', problems: expect.arrayContaining([CHANGED('version 3')]) },
      ]);
      return;
    }
    await database.pool.query(set(limits.includes(column) ? 5 : 4, `${column} = ${value}`));
    const problem = column === 'version' ? REMOVED('versions 3 to 5') : CHANGED('versions 3 to 5');
    await expectFound({ bad: expect.arrayContaining([problem]) });
  }

  it('but not where nothing was changed', async () => {
    expect(await verified(database)).toMatchObject({ accounts: 4, offenders: [] });
  });

  it.each(columns.map(([column, type]) => [column, type] as const))('%s', async (column, type) => {
    await expectFoundIn(column, other[type]);
  });

  it.each(columns.map(([column]) => column))('%s taken away', async (column) => {
    if (column === 'version') return; // the key
    await database.pool.query(`ALTER TABLE ledger ALTER ${column} DROP NOT NULL`);
    await expectFoundIn(column, 'NULL');
  });

  it('a member hidden in the text of another', async () => {
    await expectFoundIn('reverses', `reverses || '","transferId":"' || transfer_id, transfer_id = NULL`);
  });

  it.each(columns.map(([column, type]) => [column, type] as const))(
    '%s put where there was none',
    async (column, type) => {
      const { rows } = await database.pool.query(`SELECT ${column} IS NULL AS "isNull" FROM ledger WHERE ${inBad(3)}`);
      if (!rows[0].isNull) return;
      await database.pool.query(set(3, `${column} = ${other[type]}`));
      await expectFound({ bad: expect.arrayContaining([CHANGED('versions 3 to 5')]) });
    },
  );
});

it('takes no notice where the newest hash is gone: it will be written again', async () => {
  const [before] = (await database.pool.query(`SELECT hash FROM ledger_chain WHERE ${endsAt(6)}`)).rows;
  await database.pool.query(forgetHash(6));
  expect(await verified(database)).toMatchObject({ unchainedEntries: 3, offendingAccounts: 0 });
  await database.pool.query(`SELECT extend_ledger_chain('{bad}', 1)`);
  expect((await database.pool.query(`SELECT hash FROM ledger_chain WHERE ${endsAt(6)}`)).rows).toEqual([before]);
});

it('counts what is in no segment, whatever was done to the segments', async () => {
  await database.pool.query(forgetHash(5));
  expect(await verified(database)).toMatchObject({ ledgerEntries: 16, unchainedEntries: 5 });
  await database.pool.query(setSegment(6, 'first_version = 0'));
  expect(await verified(database)).toMatchObject({ ledgerEntries: 16, unchainedEntries: 2 });
  await database.pool.query(forget(4));
  expect(await verified(database)).toMatchObject({ ledgerEntries: 15, unchainedEntries: 2 });
});

it('leaves out when an entry was recorded', async () => {
  await database.pool.query(set(2, 'recorded_at = now()'));
  expect(await verified(database)).toMatchObject({ offendingAccounts: 0 });
});

describe('with heads kept elsewhere', () => {
  let kept: ChainHead[];

  beforeEach(async () => {
    const { url } = await startApiHere(database, createBroker(), { RELAY: 'off' });
    kept = await Promise.all(
      ['bad', 'good'].map(async (account) => (await send(url, 'GET', `/v1/accounts/${account}/chain-head`)).body),
    );
  });

  const REWRITE = `
    UPDATE ledger SET reference = 'x' WHERE ${inBad(2)};
    DELETE FROM ledger_chain WHERE account_id = 'bad';
    SELECT extend_ledger_chain('{bad}', 7);`;
  const REWRITE_TO_THE_END = REWRITE.replace('7);', '100);');
  const CUT = `
    DELETE FROM ledger WHERE account_id = 'bad' AND version > 4;
    DELETE FROM ledger_chain WHERE account_id = 'bad' AND last_version > 4;
    UPDATE account SET version = 4, balance = 30, overdraft_limit = 0, max_balance = NULL, status = 'open' WHERE account_id = 'bad';`;
  const ERASE = ['account', 'ledger', 'ledger_chain', 'hold']
    .map((table) => `DELETE FROM ${table} WHERE account_id = 'bad';`)
    .join('');

  it('lists what the API answers', async () => {
    const listed: ChainHead[] = [];
    for await (const heads of listChainHeads(database.pool as never)) listed.push(...heads);
    expect(listed).toEqual(kept);
    expect(kept).toMatchObject([
      { accountId: 'bad', version: 6 },
      { accountId: 'good', version: 6 },
    ]);
  });

  it.each([
    [
      'an entry and all hashes after it rewritten',
      REWRITE,
      /^the hash of version 6 is [0-9a-f]{64}, and was [0-9a-f]{64} when it was kept, in epoch \d+$/,
    ],
    [
      'an entry rewritten and all hashed again in other segments',
      REWRITE_TO_THE_END,
      /^the kept head has version 6 in epoch \d+, where no segment ends; the chain ends at 7$/,
    ],
    [
      'the newest entries cut off with their hashes',
      CUT,
      /^the kept head has version 6 in epoch \d+, where no segment ends; the chain ends at 2$/,
    ],
    ['an account erased', ERASE, /^the kept head has version 6 in epoch \d+, where there is no chain$/],
  ])('finds what the chains alone cannot show: %s', async (_, damage, problem) => {
    await database.pool.query(damage);
    expect(await verified(database)).toMatchObject({ offendingAccounts: 0 });
    const broken = await findBrokenHeads(database.pool as never, kept);
    expect(broken).toEqual([{ ...kept[0], problem: expect.stringMatching(problem), cutEpoch: undefined }]);
  });

  it('holds however far the chains have grown, for each head ever kept', async () => {
    await database.pool.query(`SELECT extend_ledger_chain('{bad,good}', 100)`);
    const { rows: older } = await database.pool.query(
      `SELECT account_id AS "accountId", last_version AS version, epoch, encode(hash, 'hex') AS hash
       FROM ledger_chain JOIN ledger USING (account_id) WHERE ledger.version = last_version`,
    );
    const empty = { accountId: 'bad', version: null, epoch: null, hash: '0'.repeat(64) };
    expect(older).toHaveLength(8);
    expect(await findBrokenHeads(database.pool as never, [...kept, ...older, empty])).toEqual([]);
    for (const wrong of [
      { ...empty, hash: 'f'.repeat(64) },
      { ...kept[0], version: 0 },
      { ...kept[0], hash: 'f'.repeat(64) },
    ]) {
      expect(await findBrokenHeads(database.pool as never, [wrong as ChainHead])).toHaveLength(1);
    }
  });

  describe('as commands', () => {
    let folder: string;

    beforeAll(async () => {
      folder = await createFolder();
    });

    const run = (...args: string[]) => runCommand(args, { DATABASE_URL: database.url });

    async function fileWith(text: string): Promise<string> {
      const file = join(folder, 'heads.jsonl');
      await writeFile(file, text);
      return file;
    }

    it('prints the heads as lines that verify takes', async () => {
      const { out, code } = await run('heads');
      expect(code).toBe(0);
      expect(out).toBe(kept.map((head) => `${JSON.stringify(head)}\n`).join(''));
      const file = await fileWith(`${out}\n`);
      const right = await run('verify', '--heads', file);
      expect(right).toMatchObject({ code: 0, out: expect.stringMatching(/kept heads +2\n.*\nverified\n$/s) });
      await database.pool.query(CUT);
      expect(await run('verify')).toMatchObject({ code: 0 });
      const wrong = await run('verify', '--heads', file);
      expect(wrong.out).toMatch(
        /\nbad: the kept head has version 6 in epoch \d+, where no segment ends; the chain ends at 2\nNOT verified\n$/,
      );
      expect(wrong.code).toBe(1);
    });

    it.each([
      ['{"accountId":"bad","version":6,"epoch":1}', /heads\.jsonl line 1 is not a head: hash /],
      [
        '\n{"accountId":"bad","version":6,"epoch":1,"hash":"12"}',
        /line 2 is not a head: hash must be 64 hexadecimal digits in lower case/,
      ],
      ['version 6', /line 1 is not JSON: each line has to be a head such as \{"accountId"/],
    ])('refuses a line that is no head: %s', async (text, message) => {
      expect(await run('verify', '--heads', await fileWith(text))).toMatchObject({
        code: 1,
        err: expect.stringMatching(message),
        out: '',
      });
    });

    it('says how it is called, and what it cannot read', async () => {
      expect(await run('verify', '--haeds', 'x')).toMatchObject({
        code: 2,
        err: expect.stringContaining('[--heads FILE '),
      });
      expect(await run('heads', 'x')).toMatchObject({
        code: 2,
        out: '',
        err: expect.stringContaining('usage: highload-balance'),
      });
      expect(await run('verify', '--heads', join(folder, 'absent'))).toMatchObject({
        code: 1,
        err: expect.stringMatching(/absent cannot be read: ENOENT/),
      });
    });
  });
});
