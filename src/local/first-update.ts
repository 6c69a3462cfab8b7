// Makes the first update on a new system: an account `demo` is credited 100 once. On a system that
// already has accounts nothing is changed; an existing demo account is only shown.
import { openClient } from '../shared/database.ts';

const ANSWER_TIMEOUT_MS = 10_000;
const HAS_ACCOUNTS = 'SELECT EXISTS (SELECT FROM account) AS "hasAccounts"';

export interface Shown {
  /** A command for the reader's shell. */
  command: string;
  /** What it answered just now. */
  answer: string;
}

/** Undefined when there is nothing to show: accounts, but no demo among them. */
export async function showFirstUpdate(url: string, databaseUrl: string): Promise<Shown | undefined> {
  if (await hasAccounts(databaseUrl)) {
    const demo = await call(`${url}/v1/accounts/demo`);
    return demo.isGood ? { command: `curl -s ${url}/v1/accounts/demo`, answer: demo.body } : undefined;
  }
  const created = await call(`${url}/v1/accounts`, { id: 'demo' });
  if (!created.isGood) return undefined;
  // The key makes the shown command safe to repeat: it gets the same answer again.
  const key = 'my-first-update';
  const update = { accountId: 'demo', amount: 100 };
  const { isGood, body } = await call(`${url}/v1/balance-updates`, update, key);
  const command =
    `curl -s ${url}/v1/balance-updates -H 'Content-Type: application/json' ` +
    `-H 'Idempotency-Key: ${key}' -d '${JSON.stringify(update)}'`;
  return isGood ? { command, answer: body } : undefined;
}

async function hasAccounts(databaseUrl: string): Promise<boolean> {
  const client = await openClient(databaseUrl, 'start', { statementTimeoutMs: ANSWER_TIMEOUT_MS });
  try {
    return (await client.query<{ hasAccounts: boolean }>(HAS_ACCOUNTS)).rows[0]?.hasAccounts ?? false;
  } finally {
    await client.end();
  }
}

async function call(url: string, body?: unknown, key?: string): Promise<{ isGood: boolean; body: string }> {
  const response = await fetch(url, {
    signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
    ...(body !== undefined && {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...(key && { 'idempotency-key': key }) },
      body: JSON.stringify(body),
    }),
  });
  return { isGood: response.ok, body: await response.text() };
}
