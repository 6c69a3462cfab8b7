// The system under test, as the load test sees it: over HTTP, and in its database for what only
// that knows.
import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { SetupProblem } from '../../src/local/setup-problem.ts';
import { describeConnectionFailure, openClient } from '../../src/shared/database.ts';
import type { LoadSettings } from './settings.ts';

const ANSWER_TIMEOUT_MS = 10_000;
const DRAIN_TIMEOUT_MS = 60_000;
const DRAIN_POLL_INTERVAL_MS = 50;

/** @throws SetupProblem when nothing answers, or something that is not ready. */
export async function checkReady(url: string): Promise<void> {
  let response: Response;
  try {
    response = await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) });
  } catch (cause) {
    throw new SetupProblem(`Nothing answers at ${url}: run npm start in another terminal, or set BASE_URL.`, { cause });
  }
  if (response.ok) return;
  throw new SetupProblem(
    `${url}/readyz answers ${response.status}, where 200 is wanted: is that this service, and ready?`,
  );
}

/** @throws SetupProblem */
export async function connectDatabase(databaseUrl: string): Promise<pg.Client> {
  return openClient(databaseUrl, 'load test', { access: 'any server' }).catch((error) => {
    throw new SetupProblem(describeConnectionFailure(databaseUrl, error), { cause: error });
  });
}

/** Where calls go, and as whom. */
type Api = Pick<LoadSettings, 'url' | 'token'>;

/** A new account with that balance. @throws SetupProblem also when the database is not the one behind the URL. */
export async function createFundedAccount(api: Api, client: pg.Client, balance: number): Promise<string> {
  const id = `load-${new Date().toISOString().replaceAll(/[-:]/g, '').replace('.', '-')}`;
  await call(api, '/v1/accounts', { id });
  await call(api, '/v1/balance-updates', { accountId: id, amount: balance, reference: 'load test' });
  const found = await client.query('SELECT FROM account WHERE account_id = $1', [id]).catch(() => undefined);
  if (found?.rowCount !== 1) {
    throw new SetupProblem(
      `The database at DATABASE_URL is not the one behind ${api.url}: it does not have account ${id}.`,
    );
  }
  return id;
}

export interface Drained {
  version: number;
  ledgerVersion: number;
  isDrained: boolean;
}

/** Waits, with a bound, until the ledger holds all changes of the account. */
export async function waitUntilDrained(api: Api, accountId: string): Promise<Drained> {
  for (const deadline = Date.now() + DRAIN_TIMEOUT_MS; ; await delay(DRAIN_POLL_INTERVAL_MS)) {
    const page = await call(api, `/v1/accounts/${accountId}/entries?limit=1`);
    const { version, ledgerVersion } = page as { version: number; ledgerVersion: number };
    const isDrained = version === ledgerVersion;
    if (isDrained || Date.now() > deadline) return { version, ledgerVersion, isDrained };
  }
}

const LEDGER_LAG = `
  WITH lags AS (
    SELECT version, 1000 * extract(epoch FROM recorded_at - created_at) AS lag_ms FROM ledger WHERE account_id = $1
  )
  SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY lag_ms)::float8 AS "p50Ms",
         max(lag_ms)::float8 AS "maxMs",
         (SELECT lag_ms FROM lags ORDER BY version DESC LIMIT 1)::float8 AS "lastMs"
  FROM lags`;

/** From a change's acceptance to its ledger entry, by the clocks of API and database. */
export interface LedgerLag {
  p50Ms: number;
  maxMs: number;
  /** Of the last change: how long the ledger needed to be complete after it. */
  lastMs: number;
}

export async function ledgerLag(client: pg.Client, accountId: string): Promise<LedgerLag> {
  return (await client.query<LedgerLag>(LEDGER_LAG, [accountId])).rows[0] as LedgerLag;
}

async function call({ url, token }: Api, target: string, body?: object): Promise<unknown> {
  const response = await fetch(`${url}${target}`, {
    signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
    headers: {
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(body && { 'content-type': 'application/json' }),
    },
    ...(body && { method: 'POST', body: JSON.stringify(body) }),
  });
  if (response.ok) return response.json();
  const hint = response.status === 401 ? '\nThis API wants a key: set BALANCE_TOKEN.' : '';
  throw new SetupProblem(`${url}${target} answers ${response.status}: ${await response.text()}${hint}`);
}
