// npm run verify: right at any instant under load, and it finds and names every kind of damage.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type Verification, verify } from '../../src/shared/verification.ts';
import {
  applyDirectly,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  insertAccounts,
  send,
  startApiHere,
  startWorkerHere,
  until,
  verified,
} from '../harness.ts';

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
    const clients = Array.from({ length: 16 }, async (_, client) => {
      // Until verify has looked often enough at a moving system, and bounded.
      for (let count = 0; count < 2000 && proofs < 40; count += 1) {
        const accountId = accounts[count % 2 ? 0 : client % accounts.length] as string;
        const amount = count % 3 === 2 ? -1 : 2;
        await send(url, 'POST', '/v1/balance-updates', { accountId, amount });
      }
    });
    const proving = (async () => {
      while (proofs < 40) {
        const found = await verified(database);
        expect(found.offenders).toEqual([]);
        pendingSeen += found.pendingChanges;
        proofs += 1;
      }
    })();
    await Promise.all([proving, ...clients]);
    expect(pendingSeen).toBeGreaterThan(0); // it looked while changes were under way
    expect(await drained(database)).toMatchObject({ offendingAccounts: 0, pendingChanges: 0 });
  });
});

describe('damage', () => {
  let database: Database;

  beforeAll(async () => {
    database = await createDatabase();
    await database.pool.query('ALTER TABLE ledger DISABLE TRIGGER ALL'); // the damage is what a superuser could do
  });
  beforeEach(async () => {
    await database.pool.query('TRUNCATE account, request, outbox, ledger');
    await insertAccounts(database, 'good', 'bad');
    for (let count = 0; count < 5; count += 1) {
      await applyDirectly(database.pool, 'good', 10);
      await applyDirectly(database.pool, 'bad', 10);
    }
    // Versions 1 to 3 are in the ledger, 3 to 5 in the outbox: 3 in both, as between recording and removal.
    await database.pool.query(
      `INSERT INTO ledger SELECT account_id, version, amount, balance, reference, created_at FROM outbox WHERE version <= 3`,
    );
    await database.pool.query('DELETE FROM outbox WHERE version < 3');
  });
  afterAll(cleanUp);

  it('is not reported where there is none', async () => {
    expect(await verified(database)).toEqual({
      accounts: 2,
      ledgerEntries: 6,
      pendingChanges: 4,
      unchainedEntries: 6,
      offendingAccounts: 0,
      offenders: [],
    });
  });

  it.each([
    ['a lost outbox row', `DELETE FROM outbox WHERE account_id = 'bad' AND version = 4`, 'version 4 is missing'],
    [
      'a lost last change',
      `DELETE FROM outbox WHERE account_id = 'bad' AND version = 5`,
      'the account is at version 5, its last entry at 4',
    ],
    ['a lost first entry', `DELETE FROM ledger WHERE account_id = 'bad' AND version = 1`, 'version 1 is missing'],
    ['a lost middle entry', `DELETE FROM ledger WHERE account_id = 'bad' AND version = 2`, 'version 2 is missing'],
    [
      'all entries lost',
      `DELETE FROM ledger WHERE account_id = 'bad'; DELETE FROM outbox WHERE account_id = 'bad'`,
      'the account is at version 5, its last entry at 0',
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
      'an entry too many',
      `INSERT INTO ledger VALUES ('bad', 6, 10, 60, NULL, now())`,
      'the account is at version 5, its last entry at 6',
    ],
    [
      'a changed account balance',
      `UPDATE account SET balance = 51 WHERE account_id = 'bad'`,
      'the balance is 51, the amounts of the entries add up to 50',
    ],
    [
      'a changed account version',
      `UPDATE account SET version = 6 WHERE account_id = 'bad'`,
      'the account is at version 6, its last entry at 5',
    ],
    [
      'a contradiction',
      `UPDATE ledger SET reference = 'x' WHERE account_id = 'bad' AND version = 3`,
      'version 3 differs between outbox and ledger',
    ],
    ['a lost account', `DELETE FROM account WHERE account_id = 'bad'`, 'has entries but no account row'],
  ])('is found and named: %s', async (_, damage, problem) => {
    await database.pool.query(damage);
    const found = await verified(database);
    expect(found.offendingAccounts).toBe(1);
    expect(found.offenders).toEqual([{ accountId: 'bad', problems: expect.arrayContaining([problem]) }]);
  });

  it('names the first twenty and counts all', async () => {
    await database.pool.query(
      `INSERT INTO account SELECT 'x' || number, 1, 0, 0, 'open', now(), now() FROM generate_series(1, 30) AS number`,
    );
    const found = await verified(database);
    expect(found.offendingAccounts).toBe(30);
    expect(found.offenders).toHaveLength(20);
  });

  it('is found in each of the steps, and between them, in the order of the accounts', async () => {
    await database.pool.query(
      `INSERT INTO account SELECT 'x' || lpad(number::text, 6, '0'), 0, 0, 0, 'open', now(), now() FROM generate_series(1, 120000) AS number`,
    );
    await database.pool.query(`UPDATE account SET balance = 1 WHERE account_id IN ('x000001', 'x050000', 'x110000')`);
    await database.pool.query(
      `INSERT INTO ledger (account_id, version, amount, balance, created_at)
       SELECT id, 1, 1, 1, now() FROM unnest(ARRAY['a', 'x049999b', 'x050000a', 'y']) AS id`,
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

  it.each([
    [0, '', /verified/],
    [1, `UPDATE account SET balance = 51 WHERE account_id = 'bad'`, /bad: the balance is 51.*\n.*NOT verified/],
  ])('ends the command with exit code %i', async (code, damage, printed) => {
    if (damage) await database.pool.query(damage);
    const { output, whenEnded } = startCommand();
    expect(await whenEnded).toBe(code);
    expect(output.out).toMatch(printed);
    const json = startCommand('--json');
    expect(await json.whenEnded).toBe(code);
    const { verified: isVerified, accounts, offenders } = JSON.parse(json.output.out);
    expect({ isVerified, accounts, offenders: offenders.length }).toEqual({
      isVerified: code === 0,
      accounts: 2,
      offenders: code,
    });
  });

  it('is told as not proven when the command is interrupted, and the server ends with it', async () => {
    const blocking = await database.pool.connect();
    try {
      await blocking.query('BEGIN; LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE');
      const { child, output, whenEnded } = startCommand();
      await until('it says how far it is', () => /^5 s: 0 accounts with 0 of about/m.test(output.err));
      child.kill('SIGINT');
      expect(await whenEnded).toBe(130);
      expect(output).toEqual({ out: '', err: expect.stringContaining('Interrupted: nothing is proven.') });
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

  function startCommand(...args: string[]) {
    const file = fileURLToPath(new URL('../../src/cli/verify.ts', import.meta.url));
    const child = spawn(process.execPath, [file, ...args], { env: { DATABASE_URL: database.url } });
    const output = { out: '', err: '' };
    child.stdout.on('data', (chunk) => {
      output.out += chunk;
    });
    child.stderr.on('data', (chunk) => {
      output.err += chunk;
    });
    return { child, output, whenEnded: once(child, 'close').then(([code]) => code as number | null) };
  }
});
