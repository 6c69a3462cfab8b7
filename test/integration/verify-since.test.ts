// verify --since: what came after kept heads is proven as verify proves it, what came before is not
// read and not claimed, and a head that the chains contradict is no beginning.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { CHANGE_COLUMN_NAMES } from '../../src/shared/change.ts';
import type { ChainHead } from '../../src/shared/contract.ts';
import { openClient } from '../../src/shared/database.ts';
import { inSnapshot, type Verification } from '../../src/shared/verification.ts';
import { PLAN_SINCE, type VerificationSince, verifySince } from '../../src/shared/verification-since.ts';
import { runCommand } from '../support/commands.ts';
import {
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  createFolder,
  type Database,
  eventIds,
  headsOf,
  insertAccounts,
  send,
  startApiHere,
  verified,
  verifiedSince,
} from '../support/harness.ts';
import { disarm, fillLedger, insertAccountRows } from '../support/ledger-rows.ts';

afterAll(cleanUp);

const TABLES = ['account', 'hold', 'reversal', 'outbox', 'ledger', 'ledger_chain'];

describe('a system with a history before its heads and one after', () => {
  let database: Database;
  let heads: ChainHead[];
  let id: (accountId: string, version: number) => string;

  /** What the worker would do by now, up to a version of each account. */
  async function record(last = 1000): Promise<void> {
    await database.pool.query(
      `INSERT INTO ledger (${CHANGE_COLUMN_NAMES}) SELECT ${CHANGE_COLUMN_NAMES} FROM outbox
       WHERE version <= $1 ON CONFLICT DO NOTHING`,
      [last],
    );
    await database.pool.query('SELECT extend_ledger_chain(array_agg(account_id), 10000) FROM account');
  }

  beforeAll(async () => {
    database = await createDatabase();
    const { url } = await startApiHere(database, createBroker(), { RELAY: 'off' });
    id = await eventIds(database);
    await disarm(database.pool);
    const { rows } = await database.pool.query(
      `SELECT conrelid::regclass AS name, conname FROM pg_constraint WHERE contype = 'c' AND conrelid IN ('hold'::regclass, 'reversal'::regclass)`,
    );
    for (const { name, conname } of rows) await database.pool.query(`ALTER TABLE ${name} DROP CONSTRAINT ${conname}`);
    const post = async (path: string, body: object, method: 'POST' | 'PATCH' = 'POST') => {
      const answer = await send(url, method, path, body);
      expect([200, 201], JSON.stringify(answer.body)).toContain(answer.status);
    };
    const update = (accountId: string, amount: number) => post('/v1/balance-updates', { accountId, amount });
    for (const account of ['busy', 'other', 'quiet']) await createAccount(url, account, 1000);
    await update('busy', 100); // 2
    await update('quiet', 5); // 2
    await record(); // segments 0 to 2
    await post('/v1/accounts/busy', { overdraftLimit: 50 }, 'PATCH'); // busy 3
    await post('/v1/transfers', { from: 'busy', to: 'other', amount: 30 }); // busy 4, other 2
    await post('/v1/accounts/busy/holds', { holdId: 'across', amount: 20 }); // busy 5
    await post('/v1/accounts/busy/holds', { holdId: 'before', amount: 3 }); // busy 6
    await record(); // segments 3 to 6, 2
    await post('/v1/accounts/busy/holds/before/release', {}); // busy 7
    await update('busy', -10); // busy 8
    await post('/v1/reversals', { of: id('busy', 8), amount: 4 }); // busy 9
    await post('/v1/accounts/quiet/holds', { holdId: 'quiet', amount: 2 }); // quiet 3
    await record(); // segments 7 to 9, 3
    heads = await headsOf(database);
    expect(heads.map(({ accountId, version }) => [accountId, version])).toEqual([
      ['busy', 9],
      ['other', 2],
      ['quiet', 3],
    ]);
    await post('/v1/accounts/busy/holds/across/capture', { amount: 5, final: false }); // busy 10
    await post('/v1/reversals', { of: id('busy', 8) }); // busy 11: the rest
    await post('/v1/reversals', { of: id('busy', 4), amount: 3 }); // busy 12, other 3
    await createAccount(url, 'late', 10); // late 1
    await post('/v1/transfers', { from: 'late', to: 'busy', amount: 2 }); // busy 13, late 2
    await post('/v1/accounts/late/holds', { holdId: 'late', amount: 1 }); // late 3
    await update('busy', 7); // busy 14
    await record(13);
    await post('/v1/transfers', { from: 'busy', to: 'other', amount: 1 }); // busy 15, other 4
    await database.pool.query(`DELETE FROM outbox WHERE version < 12 AND NOT (account_id = 'other' AND version = 4)`);
    // What a test changes is put back from these.
    await database.pool.query('CREATE SCHEMA saved');
    for (const table of TABLES)
      await database.pool.query(`CREATE TABLE saved.${table} AS SELECT * FROM public.${table}`);
  });

  beforeEach(async () => {
    await database.pool.query(`TRUNCATE ${TABLES.join(', ')}`);
    for (const table of TABLES) await database.pool.query(`INSERT INTO public.${table} SELECT * FROM saved.${table}`);
  });

  it('is proven: what is new is counted, and accounts without a head from their opening', async () => {
    expect(await verified(database)).toEqual({
      ...{ accounts: 4, ledgerEntries: 26, pendingChanges: 3, unchainedEntries: 0 },
      ...{ offendingAccounts: 0, offenders: [] },
    });
    const since = {
      ...{ accounts: 4, ledgerEntries: 9, pendingChanges: 3, unchainedEntries: 0 },
      ...{ offendingAccounts: 0, offenders: [], accountsWithoutHead: 1 },
    };
    expect(await verifiedSince(database, heads)).toEqual(since);
    expect(await verifiedSince(database, heads, 1)).toEqual(since);
  });

  it('is proven from the heads of now, which leave nothing but what has no hash, and from empty ones', async () => {
    expect(await verifiedSince(database, await headsOf(database))).toMatchObject({
      ...{ ledgerEntries: 0, pendingChanges: 3, offenders: [], accountsWithoutHead: 0 },
    });
    const empty = heads.map((head) => ({ ...head, version: null, epoch: null, hash: '0'.repeat(64) }));
    expect(await verifiedSince(database, empty)).toEqual({ ...(await verified(database)), accountsWithoutHead: 4 });
  });

  const set = (account: string, version: number, change: string) =>
    ['ledger', 'outbox']
      .map((table) => `UPDATE ${table} SET ${change} WHERE account_id = '${account}' AND version = ${version};`)
      .join('');
  const inChain = (last: number) => `account_id = 'busy' AND last_version = ${last}`;

  describe('finds what was done to it after the heads, as verify does', () => {
    it.each<[string, string | (() => string)]>([
      ['an entry altered', set('busy', 11, `reference = 'x'`)],
      ['an amount altered', set('busy', 11, 'amount = amount + 1')],
      ['the first entry after a head removed', `DELETE FROM ledger WHERE account_id = 'other' AND version = 3`],
      ['the last entry removed', `DELETE FROM outbox WHERE account_id = 'busy' AND version = 14`],
      ['a time set back', set('busy', 12, `created_at = created_at - interval '1 day'`)],
      ['an epoch altered', set('busy', 10, 'previous_epoch = previous_epoch - 1')],
      ['a hash changed', `UPDATE ledger_chain SET hash = sha256('x') WHERE ${inChain(13)}`],
      ['a hash after the head removed', `UPDATE ledger_chain SET first_version = 11 WHERE ${inChain(13)}`],
      ['a segment that overlaps the head', `UPDATE ledger_chain SET first_version = 9 WHERE ${inChain(13)}`],
      ['a segment longer than any', `INSERT INTO ledger_chain VALUES ('busy', 14, 2014, sha256('x'))`],
      [
        'the balance of an account without a new entry',
        `UPDATE account SET balance = balance + 1 WHERE account_id = 'quiet'`,
      ],
      ['its limit raised', `UPDATE account SET overdraft_limit = 9 WHERE account_id = 'quiet'`],
      ['its status', `UPDATE account SET status = 'frozen' WHERE account_id = 'quiet'`],
      ['its time of change', `UPDATE account SET updated_at = updated_at + interval '1 ms' WHERE account_id = 'quiet'`],
      ['its epoch', `UPDATE account SET epoch = epoch + 1 WHERE account_id = 'quiet'`],
      ['its asset', `UPDATE account SET asset = 'USD/2' WHERE account_id = 'quiet'`],
      ['its version', `UPDATE account SET version = 4 WHERE account_id = 'quiet'`],
      ['what it holds', `UPDATE account SET held = 0 WHERE account_id = 'quiet'`],
      [
        'a limit changed before the head put back',
        `UPDATE account SET overdraft_limit = 1000 WHERE account_id = 'busy'`,
      ],
      ['a balance and all after it', `UPDATE account SET balance = balance + 1 WHERE account_id = 'busy'`],
      ['an account erased but for its history', `DELETE FROM account WHERE account_id = 'other'`],
      ['a hold from before the head that has less left', `UPDATE hold SET remaining = 14 WHERE hold_id = 'across'`],
      ['a hold captured further', `UPDATE hold SET captured = 6 WHERE hold_id = 'across'`],
      ['a hold of another amount', `UPDATE hold SET amount = 21 WHERE hold_id = 'across'`],
      ['a hold placed earlier', `UPDATE hold SET created_at = created_at - interval '1 year' WHERE hold_id = 'across'`],
      ['a hold changed later', `UPDATE hold SET updated_at = updated_at + interval '1 ms' WHERE hold_id = 'across'`],
      ['a hold with a reference', `UPDATE hold SET reference = 'x' WHERE hold_id = 'across'`],
      ['a hold with metadata', `UPDATE hold SET metadata = '{}' WHERE hold_id = 'across'`],
      ['a hold of another client', `UPDATE hold SET client = 'eve' WHERE hold_id = 'across'`],
      ['a hold that is gone', `DELETE FROM hold WHERE hold_id = 'across'`],
      [
        'a hold of a new account made up',
        `INSERT INTO hold SELECT (jsonb_populate_record(hold, '{"hold_id":"x","status":"released","remaining":0}')).* FROM hold WHERE hold_id = 'late'`,
      ],
      ['less recorded as reversed', `UPDATE reversal SET reversed = 4 WHERE version = 8`],
      ['another original', `UPDATE reversal SET original = 11 WHERE version = 8`],
      ['a reversal of a transfer not recorded', `DELETE FROM reversal WHERE version = 4`],
      [
        'a reversal recorded of a new change',
        `INSERT INTO reversal SELECT 'busy', 14, epoch, 7, 1 FROM reversal WHERE version = 8`,
      ],
      ['a new leg removed', set('other', 3, 'transfer_id = NULL')],
      ['a new leg in another account', () => set('late', 1, `transfer_id = '${id('busy', 15)}'`)],
      ['a leg of no transfer', set('late', 1, `transfer_id = 'nobody:1:abc'`)],
      [
        'an entry beyond the account',
        `INSERT INTO ledger SELECT (jsonb_populate_record(ledger, '{"version":4}')).* FROM ledger WHERE account_id = 'quiet' AND version = 3`,
      ],
      [
        'an entry that is other than in the outbox',
        `UPDATE ledger SET reference = 'x' WHERE account_id = 'busy' AND version = 12`,
      ],
      [
        'a new account without entries',
        `DELETE FROM ledger WHERE account_id = 'late'; DELETE FROM outbox WHERE account_id = 'late'`,
      ],
    ])('%s', async (_, damage) => {
      await database.pool.query(typeof damage === 'string' ? damage : damage());
      const { offenders } = await verified(database);
      expect(offenders).not.toEqual([]);
      expect((await verifiedSince(database, heads)).offenders).toEqual(offenders);
    });

    it('a new leg of a transfer from before the heads, named with the account of the new leg', async () => {
      await database.pool.query(set('late', 1, `transfer_id = '${id('busy', 4)}'`));
      const problems = async (found: Promise<Verification>) =>
        Object.fromEntries((await found).offenders.map(({ accountId, problems }) => [accountId, problems]));
      const sum = expect.stringContaining(`the legs of transfer ${id('busy', 4)} add up to 10`);
      expect(await problems(verified(database))).toMatchObject({ busy: expect.arrayContaining([sum]) });
      expect(await problems(verifiedSince(database, heads))).toMatchObject({ late: expect.arrayContaining([sum]) });
    });

    it('the placing of an older hold altered, if a newer entry is of that hold', async () => {
      await database.pool.query(set('busy', 5, `reference = 'x'`));
      const [found] = (await verifiedSince(database, heads)).offenders;
      expect(found).toEqual({
        accountId: 'busy',
        problems: ['hold across has another reference than the entry that placed it'],
      });
    });

    it('the newest entry of a hold removed, named by its version alone', async () => {
      await database.pool.query(`DELETE FROM ledger WHERE account_id = 'busy' AND version = 10`);
      await database.pool.query(`DELETE FROM outbox WHERE account_id = 'busy' AND version = 10`);
      const [found] = (await verifiedSince(database, heads)).offenders;
      expect(found).toEqual({
        accountId: 'busy',
        problems: expect.arrayContaining(['version 10 is missing', 'entries were removed: versions 10 to 13']),
      });
    });

    it('in every account, a few at a time', async () => {
      await database.pool.query('UPDATE account SET balance = balance + 1');
      const found = await verifiedSince(database, heads, 1);
      expect(found.offenders.map(({ accountId }) => accountId)).toEqual(['busy', 'late', 'other', 'quiet']);
      expect(found.offenders).toEqual((await verified(database)).offenders);
    });
  });

  it.each([
    ['an entry of its segment altered', set('busy', 7, `reference = 'x'`)],
    ['its entry altered, and what follows from it', set('busy', 9, 'amount = 3')],
    ['an entry of its segment removed', `DELETE FROM ledger WHERE account_id = 'busy' AND version = 8`],
    ['an earlier hash changed', `UPDATE ledger_chain SET hash = sha256('x') WHERE ${inChain(6)}`],
    ['an earlier hash removed', `DELETE FROM ledger_chain WHERE ${inChain(6)}`],
  ])('does not begin at a head whose entries are not what was hashed: %s', async (_, damage) => {
    await database.pool.query(damage);
    expect((await verifiedSince(database, heads)).offenders).toMatchObject([
      {
        accountId: 'busy',
        problems: expect.arrayContaining(['the entries do not match the kept head: versions 7 to 9']),
      },
    ]);
  });

  it('does not begin at a head whose entry is gone', async () => {
    await database.pool.query(`DELETE FROM ledger WHERE account_id = 'quiet' AND version = 3`);
    expect((await verifiedSince(database, heads)).offenders).toMatchObject([
      { accountId: 'quiet', problems: expect.arrayContaining(['version 3 is missing']) },
    ]);
  });

  describe('does not claim what it does not read', () => {
    it.each([
      ['an entry in an earlier segment altered', set('busy', 3, `reference = 'x'`)],
      ['an entry in an earlier segment removed', `DELETE FROM ledger WHERE account_id = 'busy' AND version = 2`],
      ['an entry of an account without new ones altered', set('quiet', 2, `reference = 'x'`)],
      ['a hold that nothing has touched since', `UPDATE hold SET amount = 9 WHERE hold_id = 'before'`],
      [
        'history of an account without a row',
        `INSERT INTO ledger SELECT (jsonb_populate_record(ledger, '{"account_id":"nobody"}')).* FROM ledger WHERE account_id = 'late' AND version = 0`,
      ],
    ])('%s: verify finds it', async (_, damage) => {
      await database.pool.query(damage);
      expect((await verified(database)).offendingAccounts).toBe(1);
      expect((await verifiedSince(database, heads)).offendingAccounts).toBe(0);
    });
  });

  it('begins before a head whose entries were hashed again with other boundaries', async () => {
    await database.pool.query(`DELETE FROM ledger_chain WHERE account_id = 'busy' AND last_version > 6`);
    for (const entries of [2, 100]) await database.pool.query(`SELECT extend_ledger_chain('{busy}', ${entries})`);
    expect(await verifiedSince(database, heads)).toMatchObject({
      ledgerEntries: 9 + 3, // from the end of the segment before, version 6
      accountsWithoutHead: 1,
      offenders: [],
    });
    await database.pool.query(set('busy', 9, `reference = 'x'`));
    await database.pool.query(`DELETE FROM ledger_chain WHERE account_id = 'busy' AND last_version > 8`);
    await database.pool.query(`SELECT extend_ledger_chain('{busy}', 100)`);
    // Now the head follows from nothing: the caller says so, and the account is verified from its opening.
    expect(await verifiedSince(database, heads)).toMatchObject({ accountsWithoutHead: 2, offenders: [] });
  });

  describe('as a command', () => {
    let folder: string;
    beforeAll(async () => {
      folder = await createFolder();
    });

    async function since(lines: readonly object[] | string, ...args: string[]) {
      const file = join(folder, 'heads.jsonl');
      await writeFile(
        file,
        typeof lines === 'string' ? lines : lines.map((head) => `${JSON.stringify(head)}\n`).join(''),
      );
      return runCommand(['verify', '--since', file, ...args], { DATABASE_URL: database.url });
    }

    it('says what it proves, and what not', async () => {
      const { code, out, err } = await since(heads);
      expect({ code, err }).toEqual({ code: 0, err: '' });
      expect(out).toMatch(/accounts without a kept head +1\nledger entries after the heads +9\n/);
      expect(out).toMatch(/kept heads +3\nkept heads that are not in the chains +0\n/);
      expect(out).toMatch(
        /\nverified after the heads\. Not proven: that the entries up to the heads are the ones that were hashed .*\n$/,
      );
      const json = JSON.parse((await since(heads, '--json')).out);
      expect(json).toMatchObject({
        verified: true,
        since: expect.stringMatching(/heads\.jsonl$/),
        heads: { kept: 3, broken: 0 },
      });
      const { out: help } = await runCommand(['verify', '--help'], {});
      expect(help).toContain('It does not prove that the entries up to the heads are the ones that were hashed');
    });

    it('ends with 1 where something after the heads is not right', async () => {
      await database.pool.query(`UPDATE account SET balance = balance + 1 WHERE account_id = 'quiet'`);
      expect(await since(heads)).toMatchObject({
        code: 1,
        out: expect.stringMatching(
          /\nquiet: the balance is \d+, but the amounts of the entries add up to \d+\nNOT verified\n$/,
        ),
      });
    });

    it.each([
      [
        'a hash that differs',
        `UPDATE ledger SET reference = 'x' WHERE account_id = 'busy' AND version = 5;
         DELETE FROM ledger_chain WHERE account_id = 'busy';
         SELECT extend_ledger_chain('{busy}', 10)`,
        /\nbusy: the hash of version 9 is [0-9a-f]{64}, and was [0-9a-f]{64} when it was kept, in epoch \d+\nNOT verified/,
      ],
      [
        'a head where no segment ends',
        `UPDATE ledger SET reference = 'x' WHERE account_id = 'busy' AND version = 5;
         DELETE FROM ledger_chain WHERE account_id = 'busy';
         SELECT extend_ledger_chain('{busy}', 100)`,
        /\nbusy: the kept head has version 9 in epoch \d+, where no segment ends; the chain ends at 13\nNOT verified/,
      ],
      [
        'an account erased',
        TABLES.map((table) => `DELETE FROM ${table} WHERE account_id = 'busy';`).join(''),
        /\nbusy: the kept head has version 9 in epoch \d+, where there is no chain\nNOT verified/,
      ],
    ])('refuses to begin at %s, and looks at nothing', async (_, damage, sentence) => {
      await database.pool.query(damage);
      // Would be found, if it was looked at.
      await database.pool.query(`UPDATE account SET balance = balance + 1 WHERE account_id = 'quiet'`);
      const { code, out } = await since(heads);
      expect(out).toMatch(sentence);
      expect(out).toMatch(
        /: a head that is not in the chains is no beginning\. Nothing after the heads was looked at; /,
      );
      expect(out).not.toContain('quiet');
      expect(code).toBe(1);
      const { offenders, ...json } = JSON.parse((await since(heads, '--json')).out);
      expect(json).toMatchObject({ verified: false, heads: { kept: 3, broken: 1 } });
      expect(offenders).toBeUndefined();
    });

    it('refuses a file of another order, and options that do not go together', async () => {
      expect(await since([...heads].reverse())).toMatchObject({
        code: 1,
        out: '',
        err: expect.stringMatching(/heads\.jsonl line 2: other comes after quiet\. .*LC_ALL=C sort FILE/),
      });
      expect(await since([heads[0] as ChainHead, heads[0] as ChainHead])).toMatchObject({
        code: 1,
        err: expect.stringContaining('line 2: busy comes after busy.'),
      });
      expect(await since('busy\n')).toMatchObject({ code: 1, err: expect.stringContaining('line 1 is not JSON') });
      expect(await since(heads, '--heads', 'x')).toMatchObject({
        code: 2,
        err: expect.stringContaining('give either'),
      });
      const piped = await runCommand(['verify', '--since', '-'], { DATABASE_URL: database.url });
      expect(piped).toMatchObject({ code: 2, err: expect.stringContaining('cannot be standard input') });
    });

    it('begins at the openings of accounts whose heads were lost in a cut that the operator knows of', async () => {
      const { rows } = await database.pool.query('SELECT raise_epoch() AS epoch');
      const cut = rows[0].epoch;
      await database.pool.query(`
        DELETE FROM ledger WHERE account_id = 'quiet' AND version = 3;
        DELETE FROM ledger_chain WHERE account_id = 'quiet' AND last_version = 3;
        DELETE FROM outbox WHERE account_id = 'quiet';
        DELETE FROM hold WHERE account_id = 'quiet';
        UPDATE account SET version = 2, held = 0, updated_at = (SELECT created_at FROM ledger WHERE account_id = 'quiet' AND version = 2)
        WHERE account_id = 'quiet'`);
      const refused = await since(heads);
      expect(refused).toMatchObject({ code: 1, out: expect.stringContaining(`use --cut-at ${cut}`) });
      const excused = await since(heads, '--cut-at', String(cut));
      expect(excused).toMatchObject({ code: 0, out: expect.stringMatching(/accounts without a kept head +2\n/) });
      expect(excused.out).toMatch(/kept heads lost in a known cut +1\n/);
    });
  });
});

describe('a long history before the heads', () => {
  const NEW = 10;

  /** Entries, segments and holds read for what is new, by the statistics of the transaction. */
  async function readsAfter(
    entriesBefore: number,
  ): Promise<{ found: VerificationSince; reads: Record<string, number> }> {
    const database = await createDatabase();
    const { pool } = database;
    const accounts = ['a', 'b'];
    await fillLedger(pool, accounts, 0, entriesBefore - 1, 'shop');
    await pool.query(`SELECT extend_ledger_chain('{a,b}', 1000000)`);
    await insertAccountRows(pool, accounts, entriesBefore - 1);
    const heads = await headsOf(database);
    expect(heads).toMatchObject([{ version: entriesBefore - 1 }, { version: entriesBefore - 1 }]);
    await fillLedger(pool, ['a'], entriesBefore, entriesBefore + NEW - 1, 'shop');
    await pool.query('UPDATE account SET version = version + $1, balance = balance + $1 WHERE account_id = $2', [
      NEW,
      'a',
    ]);
    await pool.query(`SELECT extend_ledger_chain('{a,b}', 1000000)`);
    await pool.query('VACUUM ANALYZE');
    const client = await openClient(database.url, 'test'); // a new one: what others have read counts for them
    try {
      return await inSnapshot(client, PLAN_SINCE, async () => {
        const found = await verifySince(
          client,
          (async function* () {
            yield heads;
          })(),
        );
        const { rows } = await client.query(
          `SELECT relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) AS reads FROM pg_stat_xact_user_tables
           WHERE relname IN ('ledger', 'ledger_chain', 'account', 'hold')`,
        );
        return { found, reads: Object.fromEntries(rows.map(({ relname, reads }) => [relname, Number(reads)])) };
      });
    } finally {
      await client.end();
    }
  }

  it('is not read: as many rows with five times as many entries', async () => {
    const shorter = await readsAfter(4000);
    const longer = await readsAfter(20_000);
    for (const { found } of [shorter, longer])
      expect(found).toMatchObject({ accounts: 2, ledgerEntries: NEW, offenders: [], accountsWithoutHead: 0 });
    expect(longer.reads).toEqual(shorter.reads);
    // The segment of one head, twice what is new, and a few look-ups.
    expect(longer.reads.ledger).toBeGreaterThan(1000);
    expect(longer.reads.ledger).toBeLessThan(1000 + 5 * NEW);
    expect(longer.reads.ledger_chain).toBeLessThan(20);
  });
});

it('goes through many accounts in steps, with heads or without', async () => {
  const database = await createDatabase();
  const { pool } = database;
  await pool.query(
    `SELECT count(open_account('x' || lpad(number::text, 6, '0'), 'UNIT', 0, NULL, NULL, NULL)) FROM generate_series(1, 60000) AS number`,
  );
  await pool.query(
    `INSERT INTO ledger (${CHANGE_COLUMN_NAMES}) SELECT ${CHANGE_COLUMN_NAMES} FROM outbox; TRUNCATE outbox`,
  );
  await pool.query('SELECT extend_ledger_chain(array_agg(account_id), 100000) FROM account');
  const heads = await headsOf(database);
  await insertAccounts(database, 'a', 'x030000a', 'y');
  await pool.query(
    `UPDATE account SET balance = 1 WHERE account_id IN ('a', 'x000001', 'x010000', 'x010001', 'x060000', 'y')`,
  );
  const offenders = ['a', 'x000001', 'x010000', 'x010001', 'x060000', 'y'];
  for (const kept of [heads, heads.slice(0, 30_000), []]) {
    const found = await verifiedSince(database, kept);
    expect(found).toMatchObject({ accounts: 60_003, accountsWithoutHead: 60_003 - kept.length, offendingAccounts: 6 });
    expect(found.offenders.map(({ accountId }) => accountId)).toEqual(offenders);
    expect(found.ledgerEntries).toBe(60_000 - kept.length);
  }
});
