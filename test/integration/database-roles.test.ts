// The database roles: what each process is granted is enough for all it does, and nothing more. On
// a server of its own, where the roles do not exist yet, with an owner who is no superuser, as on a
// managed PostgreSQL.
import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { listChainHeads } from '../../src/shared/chain-head.ts';
import { openClient } from '../../src/shared/database.ts';
import { findBrokenHeads } from '../../src/shared/kept-heads.ts';
import { migrate } from '../../src/shared/migrations.ts';
import { inSnapshot, verify } from '../../src/shared/verification.ts';
import { PLAN_SINCE, verifySince } from '../../src/shared/verification-since.ts';
import { startDisposablePostgres } from '../support/backends.ts';
import {
  cleanUp,
  createApiKey,
  createBroker,
  createDatabase,
  type Database,
  drained,
  onCleanUp,
  send,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';
import { pictureOfSchema } from '../support/schema-picture.ts';

type Group = 'balance_api' | 'balance_worker' | 'balance_auditor';

const DENIED = { code: '42501' };
const APPEND_ONLY = { code: '23001' };

let serverUrl: string;
let admin: pg.Client;

beforeAll(async () => {
  const server = await startDisposablePostgres();
  onCleanUp(() => server.stop());
  serverUrl = server.url;
  admin = await connectAs(serverUrl);
});
afterAll(cleanUp);

async function connectAs(url: string): Promise<pg.Client> {
  const client = await openClient(url, 'test role');
  onCleanUp(() => client.end());
  return client;
}

/** A new login role. @returns its URL to the database. */
async function createLogin(databaseUrl: string, attributes: string): Promise<{ url: string; name: string }> {
  const name = `login_${randomUUID().slice(0, 8)}`;
  await admin.query(`CREATE ROLE ${name} LOGIN PASSWORD 'secret' ${attributes}`);
  const url = new URL(databaseUrl);
  [url.username, url.password] = [name, 'secret'];
  return { url: url.href, name };
}

const memberOf = (database: Database, group: Group) => createLogin(database.url, `IN ROLE ${group}`);

/** An empty database of an owner with these attributes. */
async function createOwned(attributes: string): Promise<{ database: Database; owner: { url: string; name: string } }> {
  const database = await createDatabase({ migrated: false, serverUrl });
  const owner = await createLogin(database.url, attributes);
  await admin.query(`ALTER DATABASE ${new URL(database.url).pathname.slice(1)} OWNER TO ${owner.name}`);
  return { database, owner };
}

/**
 * A role that may create objects in a schema of the administrator, as everyone may, and nothing
 * else.
 */
async function createGuest(): Promise<{ database: Database; owner: { url: string; name: string } }> {
  const database = await createDatabase({ migrated: false, serverUrl });
  const owner = await createLogin(database.url, '');
  await database.pool.query(
    `CREATE SCHEMA app; GRANT CREATE ON SCHEMA app TO PUBLIC; GRANT USAGE ON SCHEMA app TO ${owner.name}`,
  );
  await admin.query(`ALTER ROLE ${owner.name} SET search_path = app`);
  return { database, owner };
}

/** What its owner is asked to do. */
async function letRolesIn({ pool }: Database, guest: string): Promise<void> {
  await pool.query(`
    GRANT USAGE, CREATE ON SCHEMA app TO ${guest};
    GRANT USAGE ON SCHEMA app TO balance_api, balance_auditor, balance_worker; REVOKE CREATE ON SCHEMA app FROM PUBLIC;`);
}

// First: the server knows none of the roles yet.
describe('the migration', () => {
  it('says what an administrator has to do where the owner may not create roles, and changes nothing', async () => {
    const { database, owner } = await createOwned('');
    await expect(migrate(owner.url)).rejects.toThrow(
      /nothing was changed: login_\w+ may not create the role balance_api\. .*an administrator run: CREATE ROLE/,
    );
    const { rows } = await database.pool.query(`SELECT to_regclass('account') AS account`);
    expect(rows).toEqual([{ account: null }]);
  });

  it('makes the roles once when many databases are migrated at the same moment', async () => {
    const databases = await Promise.all(
      Array.from({ length: 6 }, () => createDatabase({ migrated: false, serverUrl })),
    );
    await Promise.all(databases.map(({ url }) => migrate(url)));
    const { rows } = await admin.query(
      `SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname ~ '^balance_' ORDER BY 1`,
    );
    expect(rows).toEqual(
      ['balance_api', 'balance_auditor', 'balance_worker'].map((rolname) => ({ rolname, rolcanlogin: false })),
    );
    for (const { pool } of databases) {
      const granted = await pool.query(`SELECT has_table_privilege('balance_worker', 'ledger', 'INSERT') AS granted`);
      expect(granted.rows).toEqual([{ granted: true }]);
    }
  });

  it('needs no right to create roles where they exist', async () => {
    const { owner } = await createOwned('');
    expect((await migrate(owner.url)).changed).toContain('grants.sql');
  });

  it('needs no more than CREATE on a schema of another role, once its owner let the roles in', async () => {
    const { database, owner } = await createGuest();
    await expect(migrate(owner.url)).rejects.toThrow(
      /nothing was changed: the schema app belongs to postgres\. Have that role, or an administrator, run: GRANT USAGE ON SCHEMA app TO balance_api, balance_auditor, balance_worker; REVOKE CREATE ON SCHEMA app FROM PUBLIC$/,
    );
    expect((await database.pool.query(`SELECT to_regclass('app.account') AS account`)).rows).toEqual([
      { account: null },
    ]);
    await letRolesIn(database, owner.name);
    expect(await migrate(owner.url)).toMatchObject({ repaired: [] });
    const worker = await connectAs((await memberOf(database, 'balance_worker')).url);
    expect((await worker.query('SELECT FROM app.ledger')).rowCount).toBe(0);
    expect(await migrate(owner.url)).toMatchObject({ applied: [], changed: [], repaired: [] });
  });

  it('reports the grants that it cannot give back, instead of success', async () => {
    const { database, owner } = await createGuest();
    await letRolesIn(database, owner.name);
    await migrate(owner.url);
    await database.pool.query('REVOKE USAGE ON SCHEMA app FROM balance_worker');
    await expect(migrate(owner.url)).rejects.toThrow(/the schema app belongs to postgres\. .* run: GRANT USAGE/);
  });

  it('refuses grants that another role made, which the owner cannot revoke', async () => {
    const { database, owner } = await createOwned('');
    await migrate(owner.url);
    await database.pool.query(`
      CREATE ROLE ${owner.name}_other; GRANT USAGE ON SCHEMA public TO ${owner.name}_other;
      GRANT INSERT ON ledger TO ${owner.name}_other WITH GRANT OPTION;
      SET ROLE ${owner.name}_other; GRANT INSERT ON ledger TO balance_api; RESET ROLE;`);
    await expect(migrate(owner.url)).rejects.toThrow(
      /INSERT on ledger was granted to balance_api by \w+_other, .* CASCADE/,
    );
    await database.pool.query(`
      REVOKE INSERT ON ledger FROM ${owner.name}_other CASCADE; DROP OWNED BY ${owner.name}_other; DROP ROLE ${owner.name}_other;`);
    expect(await migrate(owner.url)).toMatchObject({ applied: [], changed: [] });
  });

  it('names what belongs to another role, as after a restore by an administrator', async () => {
    const { database, owner } = await createOwned('');
    await migrate(owner.url);
    const giveTo = (role: string) =>
      database.pool.query(`
        ALTER TABLE ledger OWNER TO ${role}; ALTER FUNCTION apply_changes OWNER TO ${role};
        ALTER DOMAIN account_id OWNER TO ${role};`);
    await giveTo('postgres');
    await database.pool.query('CREATE TABLE theirs ()'); // in our schema, and not ours
    await expect(migrate(owner.url)).rejects.toThrow(
      /has to own every object, or be a member of its owner: postgres owns account_id, apply_changes, ledger\. Nothing was changed/,
    );
    await giveTo(owner.name);
    expect(await migrate(owner.url)).toMatchObject({ applied: [], changed: [] });
  });
});

describe('a database of an owner who is no superuser', () => {
  let database: Database;
  let owner: { url: string; name: string };

  beforeAll(async () => {
    ({ database, owner } = await createOwned(''));
    await migrate(owner.url);
  });

  it('serves all that the processes do, as members of their roles', async () => {
    const broker = createBroker();
    const api = await memberOf(database, 'balance_api');
    const worker = await memberOf(database, 'balance_worker');
    const auditor = await connectAs((await memberOf(database, 'balance_auditor')).url);
    const { url } = await startApiHere(database, broker, { DATABASE_URL: api.url, IDEMPOTENCY_KEYS_KEPT_MS: '1000' });
    await startWorkerHere(database, broker, { DATABASE_URL: worker.url });
    const guarded = await startApiHere(database, broker, { DATABASE_URL: api.url, AUTH: 'required', RELAY: 'off' });
    const { headers } = await createApiKey(database, 'client');
    expect((await send(guarded.url, 'GET', '/v1/accounts/a', undefined, headers)).status).toBe(404);

    await until('the API is ready', async () => (await send(url, 'GET', '/readyz')).status === 200);
    expect((await send(url, 'POST', '/v1/accounts', { id: 'a', overdraftLimit: 5 })).status).toBe(201);
    expect((await send(url, 'PATCH', '/v1/accounts/a', { overdraftLimit: 10 })).status).toBe(200);
    const update = { accountId: 'a', amount: 7 };
    const keyed = await send(url, 'POST', '/v1/balance-updates', update, { 'idempotency-key': 'k' });
    expect(keyed.body).toMatchObject({ balance: 7, version: 2 });
    // More than makes a partition of the outbox worth truncating.
    const updates = Array.from({ length: 1000 }, (_, item) => ({ ...update, idempotencyKey: `k${item % 10}` }));
    const more = updates.map(({ idempotencyKey: _, ...rest }) => ({ ...rest, reference: 'r'.repeat(200) }));
    expect((await send(url, 'POST', '/v1/balance-updates/bulk', { updates })).status).toBe(200);
    for (let count = 0; count < 15; count += 1) {
      expect((await send(url, 'POST', '/v1/balance-updates/bulk', { updates: more })).status).toBe(200);
      expect(await verify(auditor)).toMatchObject({ offendingAccounts: 0 });
    }

    // Not by asking verify again and again: while it looks, the outbox cannot be truncated.
    await drained(database);
    await until(
      'and chained it',
      async () => (await send(url, 'GET', '/v1/accounts/a/chain-head')).body.version === 15_012,
    );
    expect(await verify(auditor)).toMatchObject({ unchainedEntries: 0, offendingAccounts: 0 });
    const since = await inSnapshot(auditor, PLAN_SINCE, () => verifySince(auditor, listChainHeads(auditor)));
    expect(since).toMatchObject({ accounts: 1, ledgerEntries: 0, accountsWithoutHead: 0, offendingAccounts: 0 });
    for await (const heads of listChainHeads(auditor)) {
      expect(heads).toEqual([(await send(url, 'GET', '/v1/accounts/a/chain-head')).body]);
      expect((await send(url, 'GET', '/v1/accounts/a/verification')).body).toMatchObject({
        verified: true,
        version: 15_012,
      });
      expect(await findBrokenHeads(auditor, heads)).toEqual([]);
    }
    expect(await drained(database)).toMatchObject({ ledgerEntries: 15_013, offendingAccounts: 0 });
    const { body } = await send(url, 'GET', '/v1/accounts/a/entries?limit=1');
    expect(body).toMatchObject({ version: 15_012, ledgerVersion: 15_012 });
    // Nothing else takes rows from it; what came after is too little to be worth another
    // truncation.
    await until(
      'the outbox was truncated',
      async () => (await database.pool.query('SELECT count(*) AS rows FROM outbox')).rows[0].rows < 15_013,
    );
    await until(
      'the keys expired',
      async () => (await database.pool.query('SELECT FROM idempotency_key')).rowCount === 0,
    );
  });

  const APPLY = `SELECT apply_changes(${Array(25).fill('NULL').join(', ')})`;
  const LEDGER_VALUES = `('a', 999999, 1)`;
  const forbidden: Record<Group | 'nobody', string[]> = {
    balance_api: [
      `INSERT INTO ledger VALUES ${LEDGER_VALUES}`,
      `INSERT INTO ledger_chain VALUES ('a', 1, 1, sha256(''))`,
      `SELECT extend_ledger_chain(ARRAY['a'], 1)`,
      'DELETE FROM account',
      'TRUNCATE account',
      `UPDATE account SET account_id = 'b'`,
      'UPDATE account SET created_at = now()',
      `UPDATE account SET asset = 'X'`,
      'DELETE FROM hold',
      'UPDATE hold SET fingerprint = NULL',
      'UPDATE reversal SET original = 1',
      'DELETE FROM missed',
      'UPDATE outbox SET amount = 2',
      'DELETE FROM outbox',
      'UPDATE idempotency_key SET balance = 0',
      'DELETE FROM idempotency_key',
      `INSERT INTO api_key (key_id, actor, scopes, token_sha256) VALUES ('000000000000', 'a', '{admin}', sha256('a'))`,
      'UPDATE api_key SET revoked_at = NULL',
      'UPDATE api_key SET expires_at = NULL',
      'DELETE FROM api_key',
      'INSERT INTO schemaversion (version) VALUES (999)',
      'LOCK TABLE ledger IN ROW EXCLUSIVE MODE',
      'SET ROLE balance_worker',
    ],
    balance_worker: [
      'SELECT FROM account',
      'UPDATE account SET balance = 1',
      `INSERT INTO outbox (account_id, version) VALUES ('a', 1)`,
      'TRUNCATE outbox_even',
      'LOCK TABLE outbox IN ROW EXCLUSIVE MODE',
      `SELECT nextval('outbox_position')`,
      'SELECT FROM idempotency_key',
      'SELECT FROM api_key',
      'SELECT FROM relay_progress',
      APPLY,
      `SELECT expire_idempotency_keys('0')`,
      'SET ROLE balance_api',
    ],
    balance_auditor: [
      'UPDATE account SET balance = 1',
      `INSERT INTO ledger VALUES ${LEDGER_VALUES}`,
      `INSERT INTO ledger_chain VALUES ('a', 1, 1, sha256(''))`,
      `SELECT extend_ledger_chain(ARRAY['a'], 1)`,
      'TRUNCATE outbox_odd',
      'LOCK TABLE outbox IN ROW EXCLUSIVE MODE',
      'SELECT FROM idempotency_key',
      APPLY,
    ],
    nobody: [
      ...[
        'account',
        'api_key',
        'ledger',
        'ledger_chain',
        'outbox',
        'outbox_even',
        'epoch',
        'hold',
        'idempotency_key',
        'idempotency_key_odd',
        'missed',
        'reversal',
        'schema_file',
        'relay_progress',
        'schemaversion',
      ].map((table) => `SELECT FROM ${table}`),
      'SELECT last_value FROM outbox_position',
      APPLY,
      'SELECT money_verdict(1, 1, 1, 1)',
    ],
  };
  const forbiddenToAll = [
    `UPDATE ledger SET amount = 2`,
    'DELETE FROM ledger',
    'TRUNCATE ledger',
    'INSERT INTO epoch VALUES (1)',
    'UPDATE epoch SET epoch = 2',
    'TRUNCATE epoch',
    `UPDATE ledger_chain SET hash = sha256('')`,
    'DELETE FROM ledger_chain',
    'TRUNCATE ledger_chain',
    'MERGE INTO ledger USING (SELECT 1) x ON true WHEN MATCHED THEN DELETE',
    'LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE',
    'ALTER TABLE ledger DISABLE TRIGGER ALL',
    'ALTER TABLE ledger_chain DISABLE TRIGGER ALL',
    'DROP TRIGGER ledger_rows_are_final ON ledger',
    'CREATE TRIGGER mine BEFORE INSERT ON ledger EXECUTE FUNCTION refuse_change_of_history()',
    'DROP TABLE ledger',
    'CREATE OR REPLACE FUNCTION refuse_change_of_history() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$',
    'SET session_replication_role = replica',
    'CREATE TABLE planted ()',
    'CREATE SCHEMA planted',
    'GRANT balance_worker TO CURRENT_USER',
  ];
  const attempts = Object.entries(forbidden).flatMap(([who, own]) =>
    [...own, ...forbiddenToAll].map((statement) => [who, statement] as const),
  );
  const sessions = new Map<string, pg.Client>();

  it.each(attempts)('refuses %s: %s', async (who, statement) => {
    let client = sessions.get(who);
    if (!client) {
      const { url } = await (who === 'nobody' ? createLogin(database.url, '') : memberOf(database, who as Group));
      client = await connectAs(url);
      sessions.set(who, client);
    }
    await client.query('BEGIN');
    try {
      await expect(client.query(statement)).rejects.toMatchObject(DENIED);
    } finally {
      await client.query('ROLLBACK');
    }
  });

  it.each([
    ...['UPDATE ledger SET amount = 2', 'DELETE FROM ledger', 'TRUNCATE ledger'],
    ...['UPDATE epoch SET epoch = 2', 'DELETE FROM epoch', 'TRUNCATE epoch'],
    ...['UPDATE ledger_chain SET last_version = 2', 'DELETE FROM ledger_chain', 'TRUNCATE ledger_chain'],
  ])('refuses the owner too, by trigger: %s', async (statement) => {
    const client = await connectAs(owner.url);
    await expect(client.query(statement)).rejects.toMatchObject(APPEND_ONLY);
  });

  it('has exactly the grants of migrations/schema.sql', async () => {
    const file = fileURLToPath(new URL('../../migrations/schema.sql', import.meta.url));
    expect(await pictureOfSchema(await connectAs(owner.url))).toBe(await readFile(file, 'utf8'));
  });
});
