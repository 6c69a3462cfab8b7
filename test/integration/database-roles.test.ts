// The database roles: what each process is granted is enough for all it does, and nothing more. On a server of its own,
// where the roles do not exist yet, with an owner who is no superuser, as on a managed PostgreSQL.
import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findBrokenHeads, listChainHeads } from '../../src/shared/chain-head.ts';
import { openClient } from '../../src/shared/database.ts';
import { migrate } from '../../src/shared/migrations.ts';
import { verify } from '../../src/shared/verification.ts';
import { startDisposablePostgres } from '../backends.ts';
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
} from '../harness.ts';

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
    expect((await migrate(owner.url)).applied).toContain('roles');
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
    expect(keyed.body).toMatchObject({ balance: 7, version: 1 });
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
      async () => (await send(url, 'GET', '/v1/accounts/a/chain-head')).body.version === 15_011,
    );
    expect(await verify(auditor)).toMatchObject({ unchainedEntries: 0, offendingAccounts: 0 });
    for await (const heads of listChainHeads(auditor)) {
      expect(heads).toEqual([(await send(url, 'GET', '/v1/accounts/a/chain-head')).body]);
      expect((await send(url, 'GET', '/v1/accounts/a/verification')).body).toMatchObject({
        verified: true,
        version: 15_011,
      });
      expect(await findBrokenHeads(auditor, heads)).toEqual([]);
    }
    expect(await drained(database)).toMatchObject({ ledgerEntries: 15_011, offendingAccounts: 0 });
    const { body } = await send(url, 'GET', '/v1/accounts/a/entries?limit=1');
    expect(body).toMatchObject({ version: 15_011, ledgerVersion: 15_011 });
    // Nothing else takes rows from it; what came after is too little to be worth another truncation.
    await until(
      'the outbox was truncated',
      async () => (await database.pool.query('SELECT count(*) AS rows FROM outbox')).rows[0].rows < 15_011,
    );
    await until('the keys expired', async () => (await database.pool.query('SELECT FROM request')).rowCount === 0);
  });

  const LEDGER_VALUES = `('a', 999999, 1, 1, NULL, now(), now(), NULL)`;
  const forbidden: Record<Group | 'nobody', string[]> = {
    balance_api: [
      `INSERT INTO ledger VALUES ${LEDGER_VALUES}`,
      `INSERT INTO ledger_chain VALUES ('a', 1, sha256(''))`,
      `SELECT extend_ledger_chain(ARRAY['a'], 1)`,
      'DELETE FROM account',
      'TRUNCATE account',
      `UPDATE account SET account_id = 'b'`,
      'UPDATE account SET created_at = now()',
      'UPDATE outbox SET amount = 2',
      'DELETE FROM outbox',
      'UPDATE request SET balance = 0',
      'DELETE FROM request',
      `INSERT INTO api_key (key_id, actor, scopes, token_sha256) VALUES ('000000000000', 'a', '{admin}', sha256('a'))`,
      'UPDATE api_key SET revoked_at = NULL',
      'DELETE FROM api_key',
      'INSERT INTO schemaversion (version) VALUES (999)',
      'LOCK TABLE ledger IN ROW EXCLUSIVE MODE',
      'SET ROLE balance_worker',
    ],
    balance_worker: [
      'SELECT FROM account',
      'UPDATE account SET balance = 1',
      `INSERT INTO outbox (account_id, version, amount, balance, created_at) VALUES ('a', 1, 1, 1, now())`,
      'TRUNCATE outbox_even',
      'LOCK TABLE outbox IN ROW EXCLUSIVE MODE',
      `SELECT nextval('outbox_position')`,
      'SELECT FROM request',
      'SELECT FROM api_key',
      'SELECT FROM relay_progress',
      'SELECT * FROM apply_balance_updates(NULL, NULL, NULL, NULL, NULL, NULL, NULL)',
      `SELECT expire_idempotency_keys('0')`,
      'SET ROLE balance_api',
    ],
    balance_auditor: [
      'UPDATE account SET balance = 1',
      `INSERT INTO ledger VALUES ${LEDGER_VALUES}`,
      `INSERT INTO ledger_chain VALUES ('a', 1, sha256(''))`,
      `SELECT extend_ledger_chain(ARRAY['a'], 1)`,
      'TRUNCATE outbox_odd',
      'LOCK TABLE outbox IN ROW EXCLUSIVE MODE',
      'SELECT FROM request',
      'SELECT * FROM apply_balance_updates(NULL, NULL, NULL, NULL, NULL, NULL, NULL)',
    ],
    nobody: [
      ...[
        'account',
        'api_key',
        'ledger',
        'ledger_chain',
        'outbox',
        'outbox_even',
        'request',
        'request_odd',
        'relay_progress',
        'schemaversion',
      ].map((table) => `SELECT FROM ${table}`),
      'SELECT last_value FROM outbox_position',
      'SELECT * FROM apply_balance_updates(NULL, NULL, NULL, NULL, NULL, NULL, NULL)',
      'SELECT balance_step(1, 1, 1, 1)',
    ],
  };
  const forbiddenToAll = [
    `UPDATE ledger SET amount = 2`,
    'DELETE FROM ledger',
    'TRUNCATE ledger',
    `UPDATE ledger_chain SET hash = sha256('')`,
    'DELETE FROM ledger_chain',
    'TRUNCATE ledger_chain',
    'MERGE INTO ledger USING (SELECT 1) x ON true WHEN MATCHED THEN DELETE',
    'LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE',
    'ALTER TABLE ledger DISABLE TRIGGER ALL',
    'ALTER TABLE ledger_chain DISABLE TRIGGER ALL',
    'DROP TRIGGER ledger_rows_are_final ON ledger',
    'CREATE TRIGGER mine BEFORE INSERT ON ledger EXECUTE FUNCTION refuse_ledger_change()',
    'DROP TABLE ledger',
    'CREATE OR REPLACE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$',
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
    ...['UPDATE ledger_chain SET version = 2', 'DELETE FROM ledger_chain', 'TRUNCATE ledger_chain'],
  ])('refuses the owner too, by trigger: %s', async (statement) => {
    const client = await connectAs(owner.url);
    await expect(client.query(statement)).rejects.toMatchObject(APPEND_ONLY);
  });

  it('grants exactly this', async () => {
    const { rows } = await database.pool.query(`
      SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS role, object,
             string_agg(lower(privilege_type), ' ' ORDER BY privilege_type) AS privileges
      FROM (
        SELECT relname AS object, relowner AS owner, coalesce(relacl, acldefault((CASE relkind WHEN 'S' THEN 's' ELSE 'r' END)::"char", relowner)) AS acl
        FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S', 'v', 'm')
        UNION ALL
        SELECT format('%s.%s', relname, attname), relowner, attacl
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid WHERE relnamespace = 'public'::regnamespace
        UNION ALL
        SELECT proname || '()', proowner, coalesce(proacl, acldefault('f', proowner))
        FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL
        SELECT 'schema ' || nspname, nspowner, nspacl FROM pg_namespace WHERE nspname = 'public'
      ) objects
      CROSS JOIN LATERAL aclexplode(acl)
      WHERE grantee <> owner
      GROUP BY grantee, object`);
    const granted: Record<string, Record<string, string>> = {};
    for (const { role, object, privileges } of rows) {
      granted[role] ??= {};
      granted[role][object] = privileges;
    }
    // A migration that makes a table or a function adds here what the roles need of it.
    expect(granted).toEqual({
      PUBLIC: { 'schema public': 'usage' },
      balance_api: {
        account: 'insert select',
        'account.balance': 'update',
        'account.overdraft_limit': 'update',
        'account.status': 'update',
        'account.updated_at': 'update',
        'account.version': 'update',
        'apply_balance_updates()': 'execute',
        api_key: 'select',
        'balance_step()': 'execute',
        'expire_idempotency_keys()': 'execute',
        ledger: 'select',
        ledger_chain: 'select',
        'ledger_entry_bytes()': 'execute',
        outbox: 'insert select',
        outbox_even: 'select truncate',
        outbox_odd: 'select truncate',
        outbox_position: 'select usage',
        relay_progress: 'delete insert select truncate',
        request: 'insert select',
        request_even: 'truncate',
        request_odd: 'truncate',
        request_rotation: 'select',
        'request_rotation.partition': 'update',
        'request_rotation.since': 'update',
        'running_balance()': 'execute',
        'schema public': 'usage',
        schemaversion: 'select',
      },
      balance_auditor: {
        account: 'select',
        ledger: 'select',
        ledger_chain: 'select',
        'ledger_entry_bytes()': 'execute',
        outbox: 'select',
        'schema public': 'usage',
      },
      balance_worker: {
        'chain_step()': 'execute',
        'extend_ledger_chain()': 'execute',
        ledger: 'insert select',
        ledger_chain: 'insert select',
        'ledger_entry_bytes()': 'execute',
        outbox: 'select',
        'running_hash()': 'execute',
        'schema public': 'usage',
      },
    });
  });
});
