// Tokens and passwords stay where they belong: neither logs nor answers carry one, whatever goes
// wrong.
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createToken } from '../../src/shared/api-key.ts';
import { startScript } from '../support/commands.ts';
import {
  type Broker,
  cleanUp,
  createApiKey,
  createBroker,
  createDatabase,
  type Database,
  environmentOf,
  onCleanUp,
  send,
  spawnProcess,
  until,
} from '../support/harness.ts';

const UPDATES = '/v1/balance-updates';

let database: Database;
let broker: Broker;
const databasePassword = randomBytes(12).toString('hex');
const brokerPassword = randomBytes(12).toString('hex');
const answers: string[] = [];

beforeAll(async () => {
  database = await createDatabase();
  broker = createBroker();
});
afterAll(cleanUp);

/** The database's URL with a password of its own. */
async function urlWithPassword(): Promise<URL> {
  const user = `secret_${randomBytes(6).toString('hex')}`;
  await database.pool.query(`CREATE ROLE ${user} LOGIN SUPERUSER PASSWORD '${databasePassword}'`);
  onCleanUp(async () => {
    const own = await createDatabase({ migrated: false });
    await own.pool.query(`DROP ROLE ${user}`);
  });
  const url = new URL(database.url);
  url.username = user;
  url.password = databasePassword;
  return url;
}

function brokerUrl(): string {
  const url = new URL(broker.url);
  url.username = 'nobody';
  url.password = brokerPassword; // a wrong one: every attempt to connect fails
  return url.href;
}

async function call(url: string, method: 'GET' | 'POST' | 'PATCH', path: string, body?: unknown, token?: string) {
  const answer = await send(url, method, path, body, token ? { authorization: `Bearer ${token}` } : {});
  answers.push(JSON.stringify({ ...answer, headers: [...answer.headers] }));
  return answer;
}

it('shows no token and no password in logs or answers, also when everything fails', async () => {
  const url = await urlWithPassword();
  const { token, id } = await createApiKey(database, 'talkative', ['read', 'write']);
  const unknown = createToken().token;
  const environment = environmentOf(
    { ...database, url: url.href },
    { ...broker, url: brokerUrl() },
    { AUTH: 'required', LOG_LEVEL: 'trace', RATE_LIMIT: '6', RATE_LIMIT_WINDOW_S: '3600' },
  );
  const api = await spawnProcess('api', environment);
  const worker = await spawnProcess('worker', environment);
  const lines = () => api.output() + worker.output();
  const base = api.url();

  await call(base, 'GET', '/v1/accounts/alice', undefined, unknown);
  await call(base, 'GET', '/v1/accounts/alice', undefined, `${token}x`);
  await call(base, 'POST', '/v1/accounts', { id: 'alice' }, token); // forbidden
  await call(base, 'GET', `/v1/${token}`, undefined, token);
  await call(base, 'POST', UPDATES, `{"${token}":`, token);
  await call(base, 'GET', '/readyz');
  await database.pool.query('ALTER TABLE account RENAME TO account_away');
  expect((await call(base, 'GET', '/v1/accounts/alice', undefined, token)).status).toBe(500);
  expect((await call(base, 'POST', UPDATES, { accountId: 'alice', amount: 1 }, token)).status).toBe(500);
  await database.pool.query('ALTER TABLE account_away RENAME TO account');
  await database.pool.query('ALTER TABLE api_key RENAME TO api_key_away');
  await until('the reading of keys has failed', () => lines().includes('the API keys cannot be read'));
  await database.pool.query('ALTER TABLE api_key_away RENAME TO api_key');
  await database.pool.query(`ALTER ROLE ${url.username} NOLOGIN`);
  await database.pool.query(
    'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND pid <> pg_backend_pid()',
    [url.username],
  );
  const last = () => call(base, 'GET', '/v1/accounts/alice', undefined, token);
  await until('it is over its limit', async () => (await last()).status === 429);
  await until('refusals are logged', () => lines().includes('rate_limited') && lines().includes('forbidden'));
  await until('the broker is tried', () => /"level":"(warn|error)"[^\n]*(RabbitMQ|broker)/i.test(lines()));

  const secrets = { token, unknown, databasePassword, brokerPassword };
  for (const [name, secret] of Object.entries(secrets)) {
    const part = secret.startsWith('hlb_') ? secret.slice(17) : secret;
    expect(lines().includes(part), `${name} in the logs`).toBe(false);
    expect(answers.join('\n').includes(part), `${name} in an answer`).toBe(false);
  }
  // The log names who it was.
  const failed = lines()
    .split('\n')
    .find((line) => line.includes('request failed'));
  expect(JSON.parse(failed ?? '{}')).toMatchObject({ actor: 'talkative', keyId: id });
});

it('says what is wrong with a URL without repeating it', async () => {
  const extra: Record<string, string>[] = [
    { DATABASE_URL: `postgres://user:${databasePassword}@host:notaport/db` },
    { AMQP_URL: `amqp://user:${brokerPassword}@host:notaport` },
    { AMQP_URL: `http://user:${brokerPassword}@host` },
    { DATABASE_URL: `mysql://user:${databasePassword}@host/db` },
  ];
  for (const settings of extra) {
    const environment = environmentOf(database, broker, { LOG_LEVEL: 'trace', ...settings });
    const { code, out, err } = await startScript('api/main.ts', [], environment).whenEnded;
    expect(code).toBe(1);
    expect(out + err).toMatch(/^(DATABASE_URL|AMQP_URL) (is|must)/);
    expect(out + err).not.toContain(databasePassword);
    expect(out + err).not.toContain(brokerPassword);
  }
});
