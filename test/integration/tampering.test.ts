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
import {
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  insertAccounts,
  onCleanUp,
  send,
  startApiHere,
  verified,
} from '../harness.ts';

let database: Database;

beforeAll(async () => {
  database = await createDatabase();
  await database.pool.query('ALTER TABLE ledger DISABLE TRIGGER ALL; ALTER TABLE ledger_chain DISABLE TRIGGER ALL');
});
afterAll(cleanUp);

/** Two accounts of seven entries; the last is not chained yet. */
beforeEach(async () => {
  await database.pool.query('TRUNCATE account, ledger, ledger_chain');
  await insertAccounts(database, 'good', 'bad');
  for (const account of ['good', 'bad']) {
    await database.pool.query(
      `INSERT INTO ledger (account_id, version, amount, balance, reference, actor, created_at)
       SELECT $1, version, 10, 10 * version, CASE WHEN version <> 3 THEN 'order ' || version END,
              CASE WHEN version > 1 THEN 'shop' END, '2026-11-23T20:00:00Z'::timestamptz + version * interval '1 s'
       FROM generate_series(1, 7) AS version`,
      [account],
    );
    await database.pool.query(`SELECT extend_ledger_chain(ARRAY[$1], 6)`, [account]);
  }
  await database.pool.query('UPDATE account SET version = 7, balance = 70');
});

const inBad = (version: number) => `account_id = 'bad' AND version = ${version}`;
const set = (version: number, change: string) => `UPDATE ledger SET ${change} WHERE ${inBad(version)};`;
const forget = (table: string, version: number) => `DELETE FROM ${table} WHERE ${inBad(version)};`;
const rehash = (version: number) => `UPDATE ledger_chain SET hash = sha256('forged') WHERE ${inBad(version)};`;
const move = (from: number, to: number) => set(from, `version = ${to}`);

const SHORT = 'the balance is 70, the amounts of the entries add up to 60';
const CHANGED = (versions: string) => `the entry is not what was hashed: version ${versions}`;
const REMOVED = (versions: string) => `the entry was removed: version ${versions}`;
const HASH_CHANGED = (versions: string) => `the hash was changed, the entry is intact: version ${versions}`;
const HASH_REMOVED = (versions: string) => `the hash was removed: version ${versions}`;

it('reports what is not chained yet as a number, and nothing else where nothing was changed', async () => {
  expect(await verified(database)).toEqual({
    accounts: 2,
    ledgerEntries: 14,
    pendingChanges: 0,
    unchainedEntries: 2,
    offendingAccounts: 0,
    offenders: [],
  });
});

describe('is found, and nothing but it named', () => {
  it.each([
    ['the first entry altered', set(1, `reference = 'x'`), [CHANGED('1')]],
    ['a middle entry altered', set(4, `reference = 'x'`), [CHANGED('4')]],
    ['the last chained entry altered', set(6, `reference = 'x'`), [CHANGED('6')]],
    [
      'an amount moved from one entry to the next',
      set(4, 'amount = 15, balance = 45') + set(5, 'amount = 5'),
      [CHANGED('4, 5')],
    ],
    ['a time altered by a millisecond', set(2, `created_at = created_at + interval '1 ms'`), [CHANGED('2')]],
    ['a time made infinite', set(2, `created_at = 'infinity'`), [CHANGED('2')]],
    ['an empty reference where there was none', set(3, `reference = ''`), [CHANGED('3')]],
    ['no reference where there was one', set(2, 'reference = NULL'), [CHANGED('2')]],
    ['an empty actor where there was none', set(1, `actor = ''`), [CHANGED('1')]],
    ['no actor where there was one', set(2, 'actor = NULL'), [CHANGED('2')]],
    ['a reference made the actor', set(2, `reference = 'shop', actor = 'order 2'`), [CHANGED('2')]],
    [
      'two entries swapped',
      move(2, 1002) + move(4, 2) + move(1002, 4) + set(2, 'balance = 20') + set(4, 'balance = 40'),
      [CHANGED('2, 4')],
    ],
    [
      'many entries altered',
      `UPDATE ledger SET actor = 'x' WHERE account_id = 'bad'`,
      [CHANGED('1, 2, 3, 4, 5 and 1 more')],
    ],
    ['the first entry removed', forget('ledger', 1), ['version 1 is missing', SHORT, REMOVED('1')]],
    ['a middle entry removed', forget('ledger', 4), ['version 4 is missing', SHORT, REMOVED('4')]],
    ['the last chained entry removed', forget('ledger', 6), ['version 6 is missing', SHORT, REMOVED('6')]],
    [
      'an entry and its hash removed',
      forget('ledger', 4) + forget('ledger_chain', 4),
      ['version 4 is missing', SHORT, HASH_REMOVED('4')],
    ],
    [
      'a history given to another account',
      `DELETE FROM ledger WHERE account_id = 'bad'; DELETE FROM ledger_chain WHERE account_id = 'bad';
       INSERT INTO ledger SELECT 'bad', version, amount, balance, reference, created_at, recorded_at, actor FROM ledger WHERE account_id = 'good';
       INSERT INTO ledger_chain SELECT 'bad', version, hash FROM ledger_chain WHERE account_id = 'good'`,
      [CHANGED('1, 2, 3, 4, 5 and 1 more')],
    ],
    [
      'an entry put in between, and those behind it numbered anew',
      [7, 6, 5, 4].map((version) => move(version, version + 1)).join('') +
        `INSERT INTO ledger SELECT account_id, 4, 1, 31, 'x', created_at, recorded_at, actor FROM ledger WHERE ${inBad(3)};
         UPDATE ledger SET balance = balance + 1 WHERE account_id = 'bad' AND version > 4;
         UPDATE account SET version = 8, balance = 71 WHERE account_id = 'bad'`,
      [CHANGED('4, 5, 6')],
    ],
    [
      'an entry taken out of the middle, and those behind it numbered anew',
      forget('ledger', 4) +
        [5, 6, 7].map((version) => move(version, version - 1)).join('') +
        `UPDATE ledger SET balance = balance - 10 WHERE account_id = 'bad' AND version > 3;
         UPDATE account SET version = 6, balance = 60 WHERE account_id = 'bad'`,
      [CHANGED('4, 5, 6')],
    ],
    [
      'the newest entries removed, and the account put back',
      `DELETE FROM ledger WHERE account_id = 'bad' AND version > 4;
       UPDATE account SET version = 4, balance = 40 WHERE account_id = 'bad'`,
      [REMOVED('5, 6')],
    ],
    ['the first hash changed', rehash(1), [HASH_CHANGED('1')]],
    ['a middle hash changed', rehash(4), [HASH_CHANGED('4')]],
    ['the last hash changed', rehash(6), [CHANGED('6')]], // nothing follows that would tell it from a changed entry
    ['two hashes changed', rehash(2) + rehash(5), [HASH_CHANGED('2, 5')]],
    ['the first hash removed', forget('ledger_chain', 1), [HASH_REMOVED('1')]],
    ['hashes in the middle removed', forget('ledger_chain', 3) + forget('ledger_chain', 4), [HASH_REMOVED('3 to 4')]],
    [
      'a hash too many',
      `INSERT INTO ledger_chain VALUES ('bad', 8, sha256('forged'))`,
      [REMOVED('8'), HASH_REMOVED('7')],
    ],
    [
      'an entry of the tail hashed by somebody else',
      `INSERT INTO ledger_chain VALUES ('bad', 7, sha256('forged'))`,
      [CHANGED('7')],
    ],
    [
      'a whole account removed but for its hashes',
      `DELETE FROM account WHERE account_id = 'bad'; DELETE FROM ledger WHERE account_id = 'bad'`,
      ['has entries but no account row', REMOVED('1, 2, 3, 4, 5 and 1 more')],
    ],
  ])('%s', async (_, damage, problems) => {
    await database.pool.query(damage);
    const found = await verified(database);
    expect(found.offenders).toEqual([{ accountId: 'bad', problems }]);
    expect(found.offendingAccounts).toBe(1);
  });
});

it('takes no notice where the newest hash is gone: it will be written again', async () => {
  const [before] = (await database.pool.query(`SELECT hash FROM ledger_chain WHERE ${inBad(6)}`)).rows;
  await database.pool.query(forget('ledger_chain', 6));
  expect(await verified(database)).toMatchObject({ unchainedEntries: 3, offendingAccounts: 0 });
  await database.pool.query(`SELECT extend_ledger_chain('{bad}', 1)`);
  expect((await database.pool.query(`SELECT hash FROM ledger_chain WHERE ${inBad(6)}`)).rows).toEqual([before]);
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
    SELECT extend_ledger_chain('{bad}', 6);`;
  const CUT = `
    DELETE FROM ledger WHERE account_id = 'bad' AND version > 4;
    DELETE FROM ledger_chain WHERE account_id = 'bad' AND version > 4;
    UPDATE account SET version = 4, balance = 40 WHERE account_id = 'bad';`;
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
    ['the newest entries cut off with their hashes', CUT, /^the kept head is of version 6, the chain ends at 4$/],
    ['an account erased', ERASE, /^the kept head is of version 6, the chain ends at 0$/],
  ])('finds what the chains alone cannot show: %s', async (_, damage, problem) => {
    await database.pool.query(damage);
    expect(await verified(database)).toMatchObject({ offendingAccounts: 0 });
    const broken = await findBrokenHeads(database.pool as never, kept);
    expect(broken).toEqual([{ ...kept[0], problem: expect.stringMatching(problem) }]);
  });

  it('holds however far the chains have grown, for each head ever kept', async () => {
    await database.pool.query(`SELECT extend_ledger_chain('{bad,good}', 100)`);
    const older = { accountId: 'bad', version: 0, hash: '0'.repeat(64) };
    expect(await findBrokenHeads(database.pool as never, [...kept, older])).toEqual([]);
    expect(await findBrokenHeads(database.pool as never, [{ ...older, hash: 'f'.repeat(64) }])).toHaveLength(1);
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
      expect(wrong.output).toMatch(/\nbad: the kept head is of version 6, the chain ends at 4\nNOT verified\n$/);
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
