// npm run verify: right at any instant under load, and it finds and names every kind of damage.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { CHANGE_COLUMN_NAMES, CHANGE_COLUMNS } from '../../src/shared/change.ts';
import { type Verification, verify, verifyAccount } from '../../src/shared/verification.ts';
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
import { disarm } from '../ledger-rows.ts';

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
        // Changes of limits and status, and accounts that open, are changes too.
        if (count % 5 === 4) await send(url, 'PATCH', `/v1/accounts/${accountId}`, { overdraftLimit: 1 + client });
        if (count % 7 === 6) await send(url, 'POST', '/v1/accounts', { id: `new-${client}-${count}` });
      }
    });
    const proving = (async () => {
      while (proofs < 40) {
        const found = await verified(database);
        expect(found.offenders).toEqual([]);
        expect((await verifiedAlone(database, 'hot'))?.problems).toEqual([]);
        pendingSeen += found.pendingChanges;
        proofs += 1;
      }
    })();
    await Promise.all([proving, ...clients]);
    expect(pendingSeen).toBeGreaterThan(0); // it looked while changes were under way
    expect(await drained(database)).toMatchObject({ offendingAccounts: 0, pendingChanges: 0 });
  });
});

async function verifiedAlone({ pool }: Database, accountId: string) {
  const client = await pool.connect();
  try {
    return await verifyAccount(client, accountId);
  } finally {
    client.release();
  }
}

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
    // Versions 0 to 3 are in the ledger, 3 to 5 in the outbox: 3 in both, as between recording and removal.
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
      'the account is at version 5, its last entry at 4',
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
      `INSERT INTO outbox (position, ${CHANGE_COLUMN_NAMES}) SELECT position + 262144, ${CHANGE_COLUMN_NAMES} FROM outbox
       WHERE account_id = 'bad' AND version = 4`,
      'version 4 is there twice',
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
      'what version 2 holds is not the sum before plus its change',
    ],
    [
      'an altered sum of what is held',
      `UPDATE outbox SET held = 1 WHERE account_id = 'bad' AND version = 5`,
      'what version 5 holds is not the sum before plus its change',
    ],
    [
      'held changes that the account does not know of',
      `UPDATE outbox SET held = 1, held_change = 1 WHERE account_id = 'bad' AND version = 5`,
      'the account holds 0, the changes of its entries add up to 1',
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
      'a changed sum of what the account holds',
      `UPDATE account SET held = 3 WHERE account_id = 'bad'`,
      'the account holds 3, the changes of its entries add up to 0',
    ],
    [
      'a changed asset',
      `UPDATE account SET asset = 'USD/2' WHERE account_id = 'bad'`,
      'the asset is not that of all entries',
    ],
    [
      'an entry of another asset',
      `UPDATE outbox SET asset = 'USD/2' WHERE account_id = 'bad' AND version = 4`,
      'the asset is not that of all entries',
    ],
    ...['overdraft_limit = 1', 'max_balance = 1000', 'max_balance = 0', `status = 'frozen'`, `status = 'closed'`].map(
      (change) => [
        `a changed account: ${change}`,
        `UPDATE account SET ${change} WHERE account_id = 'bad'`,
        'the limits or the status are not those of version 0, which gave them last',
      ],
    ),
    [
      'limits that no entry gives',
      `UPDATE ledger SET status = NULL WHERE account_id = 'bad' AND version = 0`,
      'no entry gives the limits',
    ],
    [
      'other limits given by an entry',
      `UPDATE outbox SET overdraft_limit = 5, status = 'open' WHERE account_id = 'bad' AND version = 5`,
      'the limits or the status are not those of version 5, which gave them last',
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
      problems: [`the account is of epoch ${epoch}, its last entry of ${epoch - 1}`],
    });
  });

  it('is not reported of a history with later epochs, limits that changed and an account that closed', async () => {
    await database.pool.query(`INSERT INTO epoch SELECT epoch + 1, 'later', pg_postmaster_start_time() FROM epoch`);
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
