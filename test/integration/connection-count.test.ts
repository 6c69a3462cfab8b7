// The connections of a running system are those that docs/run.md lists.
import { readFile } from 'node:fs/promises';
import { afterAll, expect, it } from 'vitest';
import {
  cleanUp,
  createApiKey,
  createBroker,
  createDatabase,
  insertAccounts,
  send,
  sendPatiently,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';

afterAll(cleanUp);

/** By application_name, the sum in its row: of numbers and names of settings. */
async function listed(settings: Record<string, number>): Promise<Record<string, number>> {
  const text = await readFile(new URL('../../docs/run.md', import.meta.url), 'utf8');
  const rows = text.matchAll(/^\| (?:api|worker) \| `highload-balance ([a-z ]+)` \| `([A-Z_0-9 +]+)` \|/gm);
  const sum = (terms: string) =>
    terms.split(' + ').reduce((total, term) => total + (settings[term] ?? Number(term)), 0);
  return Object.fromEntries([...rows].map(([, name, terms]) => [name, sum(terms as string)]));
}

it('has the connections that the documentation lists, and no others', async () => {
  const database = await createDatabase();
  const accounts = Array.from({ length: 64 }, (_, index) => `account-${index}`);
  await insertAccounts(database, ...accounts);
  const { headers } = await createApiKey(database, 'client');
  const broker = createBroker();
  const { url } = await startApiHere(database, broker, { AUTH: 'required', LANES: '3', POOL_MAX: '5' });
  const { healthPort } = await startWorkerHere(database, broker, { HEALTH_PORT: '0', HEALTH_HOST: '127.0.0.1' });
  const expected = await listed({ LANES: 3, POOL_MAX: 5 });
  expect(Object.keys(expected).sort()).toEqual(['api', 'api keys', 'api updates', 'relay', 'worker', 'worker health']);

  const open = async (): Promise<Record<string, number>> => {
    const { rows } = await database.pool.query(
      `SELECT substr(application_name, 18) AS name, count(*) FROM pg_stat_activity
       WHERE datname = current_database() AND application_name ~ '^highload-balance (api|relay|worker)' GROUP BY 1`,
    );
    return Object.fromEntries(rows.map(({ name, count }) => [name, count]));
  };
  await until('it is ready', async () => (await send(url, 'GET', '/readyz')).status === 200);
  const most: Record<string, number> = {};
  await until('all have been open', async () => {
    const requests = accounts.flatMap((id) => [
      sendPatiently(url, 'GET', `/v1/accounts/${id}`, undefined, headers),
      sendPatiently(url, 'GET', `/v1/accounts/${id}/entries`, undefined, headers),
      sendPatiently(url, 'POST', '/v1/accounts', { id }, headers),
      sendPatiently(url, 'POST', '/v1/balance-updates', { accountId: id, amount: 1 }, headers),
    ]);
    const health = `http://127.0.0.1:${healthPort}`;
    const [now] = await Promise.all([open(), ...requests, send(url, 'GET', '/readyz'), send(health, 'GET', '/readyz')]);
    for (const [name, count] of Object.entries(now)) most[name] = Math.max(count, most[name] ?? 0);
    for (const [name, count] of Object.entries(most)) expect(count, name).toBeLessThanOrEqual(expected[name] ?? 0);
    const { worker, relay, ...others } = expected; // how many of theirs these two need at once is chance
    const areAll = Object.entries(others).every(([name, count]) => most[name] === count);
    return areAll && (most.worker ?? 0) > 0 && (most.relay ?? 0) > 1;
  });
});
