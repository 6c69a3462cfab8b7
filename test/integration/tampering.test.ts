// What somebody changes who may do everything in the database, verify finds and names: with the hash chains alone, or, where
// they were rewritten too, with heads that were kept elsewhere.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type ChainHead, findBrokenHeads, listChainHeads } from '../../src/shared/chain-head.ts';
import { CHANGE_COLUMNS, type Change } from '../../src/shared/change.ts';
import { verifyAccount } from '../../src/shared/verification.ts';
import {
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  onCleanUp,
  send,
  startApiHere,
  verified,
} from '../harness.ts';
import { changeRow, disarm, insertEntries, LEDGER_EPOCH } from '../ledger-rows.ts';

let database: Database;

beforeAll(async () => {
  database = await createDatabase();
  await disarm(database.pool);
});
afterAll(cleanUp);

const LAST = 7;

/** Eight entries with whatever an entry can have, most of it in version 4. */
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
      ...{ metadata: '{"a":"b"}', transferId: 't', reverses: 'r' },
      ...{ holdId: 'h', holdStatus: 'active', holdRemaining: 5, holdExpiresAt: new Date('2026-12-23T20:00:00.000Z') },
    },
    { ...shop, ...limits, type: 'account.changed', amount: 0, balance: 30, held: 5 },
    { ...shop, amount: 10, balance: 40, held: 5, reference: 'order 6' },
    { ...shop, amount: 10, balance: 50, held: 5, reference: 'order 7' },
  ];
  return rest.map((members, version) => changeRow(account, version, members));
}

/** Two accounts, each in segments of the versions 0 to 2, 3 to 5 and 6; the last entry is not chained yet. */
beforeEach(async () => {
  await database.pool.query('TRUNCATE account, ledger, ledger_chain');
  for (const account of ['good', 'bad']) {
    await insertEntries(database.pool, history(account));
    for (const entries of [3, 3, 1])
      await database.pool.query(`SELECT extend_ledger_chain(ARRAY[$1], $2)`, [account, entries]);
    await database.pool.query(
      `INSERT INTO account (account_id, balance, held, version, epoch, overdraft_limit, max_balance, status, created_at, updated_at)
       VALUES ($1, 50, 5, ${LAST}, ${LEDGER_EPOCH}, 7, 1000, 'frozen', now(), now())`,
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
const SHORT = 'the balance is 50, the amounts of the entries add up to 40';
const CHANGED = (versions: string) => `the entries are not what was hashed: ${versions}`;
const REMOVED = (versions: string) => `entries were removed: ${versions}`;
const HASH_CHANGED = (versions: string) => `the hash was changed, the entries are intact: ${versions}`;
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
    ['an entry in the middle of a segment altered', set(4, `reference = 'x'`), [CHANGED('versions 3 to 5')]],
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
      'a member hidden in the text of another',
      set(4, `metadata = '{"a":"b"},"reverses":"r"', reverses = NULL`),
      [CHANGED('versions 3 to 5')],
    ],
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
    ['all entries altered', `UPDATE ledger SET actor = 'x' WHERE account_id = 'bad'`, [CHANGED(ALL)]],
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
    ['the last hash changed', rehash(6), [CHANGED('version 6')]], // nothing follows that would tell it from a changed entry
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
      ['the segment is too long to be one: versions 7 to 2007'],
    ],
    [
      'an entry of the tail hashed by someone else',
      `INSERT INTO ledger_chain VALUES ('bad', 7, 7, sha256('forged'))`,
      [CHANGED('version 7')],
    ],
    [
      'a whole account removed but for its hashes',
      `DELETE FROM account WHERE account_id = 'bad'; DELETE FROM ledger WHERE account_id = 'bad'`,
      ['has entries but no account row', REMOVED(ALL)],
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
      good: expect.arrayContaining(['the account is at version 7, its last entry at 8']),
    });
  });
});

describe('is found in each column of an entry that has it', () => {
  const other = { text: `'other'`, bigint: '4711', timestamptz: `'2026-11-25T00:00:00Z'` };
  /** Of each kind of column, its entry: version 4 has what is not in {@link limits}. */
  const limits = ['overdraft_limit', 'max_balance', 'status'];
  const columns = CHANGE_COLUMNS.filter(([column]) => column !== 'account_id');

  it.each(columns.map(([column, type]) => [column, type] as const))('%s', async (column, type) => {
    const version = limits.includes(column) ? 5 : 4;
    await database.pool.query(set(version, `${column} = ${other[type]}`));
    const problem = column === 'version' ? REMOVED('versions 3 to 5') : CHANGED('versions 3 to 5');
    await expectFound({ bad: expect.arrayContaining([problem]) });
  });

  it.each(columns.map(([column]) => column))('%s taken away', async (column) => {
    if (column === 'version') return; // the key
    const version = limits.includes(column) ? 5 : 4;
    await database.pool.query(`ALTER TABLE ledger ALTER ${column} DROP NOT NULL`);
    await database.pool.query(set(version, `${column} = NULL`));
    const found = await verified(database);
    expect(found.offenders).toEqual([
      { accountId: 'bad', problems: expect.arrayContaining([CHANGED('versions 3 to 5')]) },
    ]);
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
  const ERASE = ['account', 'ledger', 'ledger_chain']
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
      'an entry and all hashes behind it rewritten',
      REWRITE,
      /^the hash of version 6 is [0-9a-f]{64}, and was [0-9a-f]{64} when it was kept$/,
    ],
    [
      'an entry rewritten and all hashed again in other segments',
      REWRITE_TO_THE_END,
      /^the kept head is of version 6, where no segment ends; the chain ends at 7$/,
    ],
    [
      'the newest entries cut off with their hashes',
      CUT,
      /^the kept head is of version 6, where no segment ends; the chain ends at 2$/,
    ],
    ['an account erased', ERASE, /^the kept head is of version 6, where there is no chain$/],
  ])('finds what the chains alone cannot show: %s', async (_, damage, problem) => {
    await database.pool.query(damage);
    expect(await verified(database)).toMatchObject({ offendingAccounts: 0 });
    const broken = await findBrokenHeads(database.pool as never, kept);
    expect(broken).toEqual([{ ...kept[0], problem: expect.stringMatching(problem) }]);
  });

  it('holds however far the chains have grown, for each head ever kept', async () => {
    await database.pool.query(`SELECT extend_ledger_chain('{bad,good}', 100)`);
    const { rows: older } = await database.pool.query(
      `SELECT account_id AS "accountId", last_version AS version, encode(hash, 'hex') AS hash FROM ledger_chain`,
    );
    const empty = { accountId: 'bad', version: null, hash: '0'.repeat(64) };
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
      folder = await mkdtemp(join(tmpdir(), 'heads-'));
      onCleanUp(() => rm(folder, { recursive: true }));
    });

    async function run(command: 'verify' | 'heads', ...args: string[]) {
      const file = fileURLToPath(new URL(`../../src/cli/${command}.ts`, import.meta.url));
      const child = spawn(process.execPath, [file, ...args], { env: { DATABASE_URL: database.url } });
      let [output, errors] = ['', ''];
      child.stdout.on('data', (chunk) => {
        output += chunk;
      });
      child.stderr.on('data', (chunk) => {
        errors += chunk;
      });
      const [exitCode] = await once(child, 'close');
      return { output, errors, exitCode };
    }

    async function fileWith(text: string): Promise<string> {
      const file = join(folder, 'heads.jsonl');
      await writeFile(file, text);
      return file;
    }

    it('prints the heads as lines that verify takes', async () => {
      const { output, exitCode } = await run('heads');
      expect(exitCode).toBe(0);
      expect(output).toBe(kept.map((head) => `${JSON.stringify(head)}\n`).join(''));
      const file = await fileWith(`${output}\n`);
      const right = await run('verify', '--heads', file);
      expect(right).toMatchObject({ exitCode: 0, output: expect.stringMatching(/kept heads +│ 2 .*\nverified\n$/s) });
      await database.pool.query(CUT);
      expect(await run('verify')).toMatchObject({ exitCode: 0 });
      const wrong = await run('verify', '--heads', file);
      expect(wrong.output).toMatch(
        /\nbad: the kept head is of version 6, where no segment ends; the chain ends at 2\nNOT verified\n$/,
      );
      expect(wrong.exitCode).toBe(1);
    });

    it.each([
      ['{"accountId":"bad","version":6}', /heads\.jsonl line 1 is not a head: hash /],
      [
        '\n{"accountId":"bad","version":6,"hash":"12"}',
        /line 2 is not a head: hash must be 64 hexadecimal digits in lower case/,
      ],
      ['version 6', /line 1 is not JSON: each line has to be a head such as \{"accountId"/],
    ])('refuses a line that is no head: %s', async (text, message) => {
      expect(await run('verify', '--heads', await fileWith(text))).toMatchObject({
        exitCode: 1,
        errors: expect.stringMatching(message),
        output: '',
      });
    });

    it('says how it is called, and what it cannot read', async () => {
      expect(await run('verify', '--haeds', 'x')).toMatchObject({
        exitCode: 2,
        errors: expect.stringContaining('[--heads FILE]'),
      });
      expect(await run('heads', 'x')).toMatchObject({
        exitCode: 2,
        output: '',
        errors: expect.stringContaining('npm run'),
      });
      expect(await run('verify', '--heads', join(folder, 'absent'))).toMatchObject({
        exitCode: 1,
        errors: expect.stringMatching(/^the file of heads cannot be read: ENOENT/),
      });
    });
  });
});
