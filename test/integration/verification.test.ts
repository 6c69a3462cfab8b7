// npm run verify: right at any instant under load, and it finds and names every kind of damage.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { verify } from '../../src/shared/verification.ts';
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
    const found = await verify(database.pool as unknown as pg.Client);
    expect(found.offendingAccounts).toBe(30);
    expect(found.offenders).toHaveLength(20);
  });

  it.each([
    [0, '', /verified/],
    [1, `UPDATE account SET balance = 51 WHERE account_id = 'bad'`, /bad: the balance is 51.*\n.*NOT verified/],
  ])('ends the command with exit code %i', async (code, damage, printed) => {
    if (damage) await database.pool.query(damage);
    const command = spawn(process.execPath, [fileURLToPath(new URL('../../src/cli/verify.ts', import.meta.url))], {
      env: { DATABASE_URL: database.url },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    command.stdout.on('data', (chunk) => {
      output += chunk;
    });
    const [exitCode] = await once(command, 'close');
    expect(output).toMatch(printed);
    expect(exitCode).toBe(code);
  });
});
