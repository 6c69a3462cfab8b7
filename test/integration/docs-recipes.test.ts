// The recipes of docs/concepts.md, sent one after the other to a new system: each is answered 200 or 201, and the books balance.
import { readFile } from 'node:fs/promises';
import { afterAll, expect, it } from 'vitest';
import { cleanUp, createAccount, createBroker, createDatabase, send, startApiHere, verified } from '../harness.ts';

afterAll(cleanUp);

it('does what docs/concepts.md says', async () => {
  const docs = await readFile(new URL('../../docs/concepts.md', import.meta.url), 'utf8');
  const recipes = [...docs.matchAll(/^```json\n(POST|PATCH) (\S+)\n(.*?)\n```$/gms)];
  expect(recipes.length).toBeGreaterThanOrEqual(8);
  const database = await createDatabase();
  const { url } = await startApiHere(database, createBroker(), { RELAY: 'off' });
  for (const id of ['seller', 'fees', 'user']) await createAccount(url, id);
  for (const id of ['buyer', 'bank']) await createAccount(url, id, 10_000);
  let transferId: string | undefined;
  for (const [, method, path, body] of recipes) {
    const sent = (body as string).replace('<transferId of order 1>', transferId ?? '');
    const answer = await send(url, method as 'POST', path as string, sent);
    expect([200, 201], JSON.stringify(answer.body)).toContain(answer.status);
    for (const result of answer.body.results ?? []) expect(result.status).toBe(200);
    transferId ??= answer.body.transferId;
  }
  const balances = await database.pool.query('SELECT account_id AS id, balance, held FROM account ORDER BY account_id');
  expect(Object.fromEntries(balances.rows.map(({ id, balance, held }) => [id, [balance, held]]))).toEqual({
    ...{ bank: [10_000 - 312 - 100, 0], buyer: [10_000 - 2700, 0], fees: [0, 0] },
    ...{ seller: [2700 + 40, 0], user: [60, 0] },
  });
  expect(await verified(database)).toMatchObject({ offenders: [] });
});
