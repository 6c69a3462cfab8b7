// highload-balance logins: the roles that the URLs of the processes name, by an owner who is no superuser, as on a
// managed PostgreSQL. On a server of its own, because roles belong to the whole server.
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { openClient, openPool } from '../../src/shared/database.ts';
import { createLogins, GROUPS } from '../../src/shared/login-roles.ts';
import { migrate } from '../../src/shared/migrations.ts';
import { startDisposablePostgres } from '../support/backends.ts';
import { runCommand } from '../support/commands.ts';
import {
  cleanUp,
  createBroker,
  createFolder,
  drained,
  onCleanUp,
  send,
  startApiHere,
  startWorkerHere,
} from '../support/harness.ts';

let server: string;
let admin: pg.Client;
let owner: string;
let database: string;

beforeAll(async () => {
  const postgres = await startDisposablePostgres();
  onCleanUp(() => postgres.stop());
  server = postgres.url;
  admin = await openClient(server, 'test');
  onCleanUp(() => admin.end());
  await admin.query(`CREATE ROLE the_owner LOGIN CREATEROLE PASSWORD 'owner'`);
  await admin.query(`CREATE ROLE a_stranger LOGIN PASSWORD 'stranger'`);
  await admin.query(`CREATE ROLE a_helper LOGIN CREATEROLE PASSWORD 'helper'`);
  await admin.query('CREATE ROLE a_user LOGIN; CREATE ROLE a_team; CREATE ROLE a_league');
});
afterAll(cleanUp);

let databases = 0;
beforeEach(async () => {
  databases += 1;
  database = `system${databases}`;
  await admin.query(`CREATE DATABASE ${database} OWNER the_owner`);
  owner = urlOf('the_owner', 'owner');
});

function urlOf(user: string, password: string, name = database): string {
  const url = new URL(server);
  [url.username, url.password, url.pathname] = [user, password, `/${name}`];
  return url.href;
}

const asSuperuser = () => urlOf(new URL(server).username, new URL(server).password);

const settings = (more: Record<string, string> = {}) => ({
  DATABASE_URL: owner,
  API_DATABASE_URL: urlOf('api-1', 'api/se:cret@!'),
  WORKER_DATABASE_URL: urlOf('Worker', "w'o%24rker"),
  OPERATOR_DATABASE_URL: urlOf('operator_1', 'operator'),
  ...more,
});

const logins = (environment: Record<string, string>) => runCommand(['logins'], environment);
const answers = (url: string) =>
  openClient(url, 'test').then(
    async (client) => {
      await client.end();
      return 'in';
    },
    ({ code }) => code,
  );
const passwords = async () => (await admin.query('SELECT rolname, rolpassword FROM pg_authid ORDER BY 1')).rows;

it('makes logins with which everything works, and with which no one else comes in', async () => {
  await migrate(owner);
  expect(await answers(urlOf('a_stranger', 'stranger'))).toBe('in');
  const environment = settings();
  expect(await logins(environment)).toEqual({
    code: 0,
    out: 'api-1: created, in balance_api\nWorker: created, in balance_worker\noperator_1: created, in balance_api and balance_auditor\n',
    err: '',
  });
  const broker = createBroker();
  const api = createAt(environment.API_DATABASE_URL);
  const { url } = await startApiHere(api, broker);
  await startWorkerHere(createAt(environment.WORKER_DATABASE_URL), broker);
  await send(url, 'POST', '/v1/accounts', { id: 'alice' });
  expect((await send(url, 'POST', '/v1/balance-updates', { accountId: 'alice', amount: 5 })).status).toBe(200);
  await drained(createAt(owner));
  const operator = { DATABASE_URL: environment.OPERATOR_DATABASE_URL };
  expect(await runCommand(['verify'], operator)).toMatchObject({ code: 0, out: expect.stringContaining('verified') });
  expect(await answers(urlOf('a_stranger', 'stranger'))).toBe('42501');
  expect(await answers(owner)).toBe('in');
});

/** A database of the harness at a URL of this file's server. */
function createAt(url: string) {
  const pool = openPool(url, 'test', 2, { access: 'any server' });
  onCleanUp(() => pool.end());
  return { url, pool };
}

it('sets new passwords of URLs in files, and keeps an operator out that is left out', async () => {
  await migrate(owner);
  const folder = await createFolder();
  const files = { API_DATABASE_URL: urlOf('api-2', 'first'), WORKER_DATABASE_URL: urlOf('worker-2', 'first') };
  const environment: Record<string, string> = { DATABASE_URL: owner };
  const writeAll = async () => {
    for (const [variable, url] of Object.entries(files)) {
      environment[`${variable}_FILE`] = path.join(folder, variable);
      await writeFile(path.join(folder, variable), `${url}\n`);
    }
  };
  await writeAll();
  expect((await logins(environment)).code).toBe(0);
  const before = files.API_DATABASE_URL;
  files.API_DATABASE_URL = urlOf('api-2', 'second');
  await writeAll();
  expect(await logins(environment)).toMatchObject({ code: 0, out: expect.stringMatching('api-2: password set') });
  expect(await answers(before)).toBe('28P01');
  expect(await answers(files.API_DATABASE_URL)).toBe('in');
  expect(await answers(files.WORKER_DATABASE_URL)).toBe('in');
});

it('has no password in a statement, which a server may log', async () => {
  await migrate(owner);
  const client = await openClient(owner, 'test');
  onCleanUp(() => client.end());
  const texts: string[] = [];
  const query = client.query.bind(client) as (...given: unknown[]) => unknown;
  client.query = ((...given: unknown[]) => {
    texts.push(JSON.stringify(given));
    return query(...given);
  }) as typeof client.query;
  await createLogins(client, [{ role: 'api-3', password: 'unspeakable', groups: GROUPS.api }]);
  expect(texts.length).toBeGreaterThan(5);
  expect(texts.filter((text) => text.includes('unspeakable'))).toEqual([]);
  expect(await answers(urlOf('api-3', 'unspeakable'))).toBe('in');
  expect(await answers(urlOf('api-3', 'unspeakable2'))).toBe('28P01');
});

describe('a user that was the user of another process', () => {
  const rotated = (api: string, worker: string, operator: string) => ({
    DATABASE_URL: owner,
    API_DATABASE_URL: urlOf(api, 'p'),
    WORKER_DATABASE_URL: urlOf(worker, 'p'),
    OPERATOR_DATABASE_URL: urlOf(operator, 'p'),
  });
  const groupsOf = async (role: string) =>
    (
      await admin.query(
        `SELECT ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname <> $1 AND pg_has_role($1, oid, 'MEMBER') ORDER BY 1) AS groups`,
        [role],
      )
    ).rows[0].groups;

  it('leaves the groups of that one', async () => {
    await migrate(owner);
    expect((await logins(rotated('one', 'two', 'three'))).code).toBe(0);
    const after = rotated('two', 'three', 'one');
    expect(await logins(after)).toEqual({
      code: 0,
      out:
        'two: password set, in balance_api, no longer in balance_worker\n' +
        'three: password set, in balance_worker, no longer in balance_api and balance_auditor\n' +
        'one: password set, in balance_api and balance_auditor\n',
      err: '',
    });
    expect(await groupsOf('one')).toEqual(['balance_api', 'balance_auditor']);
    expect(await groupsOf('two')).toEqual(['balance_api']);
    expect(await groupsOf('three')).toEqual(['balance_worker']);
    expect((await logins(after)).out).not.toContain('no longer');
  });

  it('is refused if DATABASE_URL may not take it out of a group', async () => {
    await migrate(owner);
    const environment = rotated('four', 'five', 'six');
    expect((await logins(environment)).code).toBe(0);
    await admin.query('GRANT balance_worker TO four');
    await admin.query('GRANT balance_worker TO a_helper WITH ADMIN OPTION');
    await admin.query('SET ROLE a_helper; GRANT balance_worker TO four; RESET ROLE');
    const before = await passwords();
    const { code, err } = await logins(environment);
    expect({ code, err }).toEqual({
      code: 1,
      err: expect.stringMatching(/^four would stay in balance_worker, which a_helper granted.* run REVOKE /),
    });
    const [, statement] = err.match(/run (REVOKE .*), and then/)!;
    await admin.query(statement!);
    expect((await logins(environment)).err).toContain('which postgres granted');
    expect(await passwords()).toEqual(before);
    expect(await logins({ ...environment, DATABASE_URL: asSuperuser() })).toMatchObject({
      code: 0,
      out: expect.stringContaining('four: password set, in balance_api, no longer in balance_worker\n'),
    });
    expect(await groupsOf('four')).toEqual(['balance_api']);
  });

  it('is refused if it is in a group through another role', async () => {
    await migrate(owner);
    const environment = rotated('seven', 'eight', 'nine');
    expect((await logins(environment)).code).toBe(0);
    await admin.query('GRANT balance_auditor TO a_team; GRANT a_team TO eight');
    const before = await passwords();
    const { code, err } = await logins(environment);
    await admin.query('REVOKE balance_auditor FROM a_team; REVOKE a_team FROM eight');
    expect({ code, err }).toEqual({
      code: 1,
      err: expect.stringContaining(
        'eight would stay in balance_auditor, because it is in a_team: take it out of a_team',
      ),
    });
    expect(await passwords()).toEqual(before);
  });
});

it('refuses a login that could not connect, until DATABASE_URL may let it', async () => {
  await migrate(owner);
  expect((await logins(settings())).code).toBe(0);
  await admin.query('GRANT balance_api, balance_worker, balance_auditor TO a_helper WITH ADMIN OPTION');
  await admin.query(`GRANT CONNECT ON DATABASE ${database} TO a_helper`);
  const environment = {
    DATABASE_URL: urlOf('a_helper', 'helper'),
    API_DATABASE_URL: urlOf('api-4', 'p'),
    WORKER_DATABASE_URL: urlOf('worker-4', 'p'),
  };
  const before = await passwords();
  const { code, out, err } = await logins(environment);
  expect({ code, out, err }).toEqual({
    code: 1,
    out: '',
    err: expect.stringMatching(
      `^api-4, worker-4 could not connect to the database ${database}, and a_helper, .* as the_owner`,
    ),
  });
  expect(await passwords()).toEqual(before);
  const [, statement] = err.match(/run (GRANT .*), and then/)!;
  const client = await openClient(owner, 'test');
  await client.query(statement!).finally(() => client.end());
  expect((await logins(environment)).code).toBe(0);
  expect(await answers(environment.API_DATABASE_URL)).toBe('in');
  expect(await answers(environment.WORKER_DATABASE_URL)).toBe('in');
});

describe('refuses, and changes nothing', () => {
  it.each<[string, () => Record<string, string>, string]>([
    ['the owner', () => ({ API_DATABASE_URL: owner }), 'API_DATABASE_URL has the user of DATABASE_URL, the_owner'],
    [
      'one user twice',
      () => ({ WORKER_DATABASE_URL: urlOf('api-1', 'other') }),
      'WORKER_DATABASE_URL has the same user as API_DATABASE_URL',
    ],
    ['a superuser', () => ({ API_DATABASE_URL: urlOf('postgres', 'p') }), 'has the user postgres, who may do more'],
    [
      'a group role',
      () => ({ WORKER_DATABASE_URL: urlOf('balance_api', 'p') }),
      'WORKER_DATABASE_URL has the user balance_api, a group role',
    ],
    ['no password', () => ({ API_DATABASE_URL: urlOf('api-1', '') }), 'has no password for api-1'],
    ['another database', () => ({ API_DATABASE_URL: urlOf('api-1', 'p', 'other') }), 'names the database other'],
    ['what cannot be typed', () => ({ API_DATABASE_URL: urlOf('api-1', 'pä') }), 'is not of printable ASCII'],
    ['an unset URL', () => ({ API_DATABASE_URL: '' }), 'API_DATABASE_URL is not set'],
    [
      'a role that may not create roles',
      () => ({ DATABASE_URL: urlOf('a_stranger', 'stranger') }),
      'use a DATABASE_URL whose role may create roles',
    ],
  ])('%s', async (_, more, sentence) => {
    await migrate(owner);
    await admin.query('DROP ROLE IF EXISTS "fresh"');
    const before = await passwords();
    const fresh = { OPERATOR_DATABASE_URL: urlOf('fresh', 'p') };
    const { code, err } = await logins(settings({ ...fresh, ...more() }));
    expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining(sentence) });
    expect(err).not.toContain('secret');
    expect(await passwords()).toEqual(before);
  });

  it.each([
    ['the owner of a table', () => 'ALTER TABLE account OWNER TO a_user', 'who owns the tables'],
    ['the owner of the schema', () => 'ALTER SCHEMA public OWNER TO a_user', 'who owns the schema'],
    ['the owner of the database', () => `ALTER DATABASE ${database} OWNER TO a_user`, 'who owns the database'],
    [
      'a member of the owner',
      () => 'GRANT the_owner TO a_league; GRANT a_league TO a_team; GRANT a_team TO a_user WITH INHERIT FALSE',
      'who is a member of the_owner, who owns the tables',
    ],
  ])('%s', async (_, statements, sentence) => {
    await migrate(owner);
    const client = await openClient(asSuperuser(), 'test');
    await client.query(statements()).finally(() => client.end());
    const before = await passwords();
    const { code, err } = await logins({
      DATABASE_URL: asSuperuser(),
      API_DATABASE_URL: urlOf('fresh-2', 'p'),
      WORKER_DATABASE_URL: urlOf('a_user', 'p'),
    });
    await admin.query('REVOKE the_owner FROM a_league');
    expect({ code, err }).toEqual({
      code: 1,
      err: expect.stringContaining(`WORKER_DATABASE_URL has the user a_user, ${sentence}: name another one`),
    });
    expect(await passwords()).toEqual(before);
  });

  it('a database without tables', async () => {
    const { code, err } = await logins(settings());
    expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining('Run migrate first') });
  });
});
