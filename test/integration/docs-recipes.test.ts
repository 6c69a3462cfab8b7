// The recipes of docs/concepts.md, sent one after the other to a new system: each is answered 200
// or 201, or refused where it says so, and the books balance. The keys that it names are made by
// the commands that it shows.
import { readFile } from 'node:fs/promises';
import { afterAll, expect, it } from 'vitest';
import { runCommand } from '../support/commands.ts';
import {
  cleanUp,
  createAccount,
  createApiKey,
  createBroker,
  createDatabase,
  type Database,
  send,
  startApiHere,
  verified,
} from '../support/harness.ts';

afterAll(cleanUp);

/** `POST /v1/transfers as game1, forbidden`, and the body. */
const RECIPE =
  /^```json\n(?<method>GET|POST|PATCH) (?<path>\S+)(?: as (?<client>\w+))?(?:, (?<refusal>\w+))?\n(?:(?<body>[^`]+)\n)?```$/gm;
const COMMAND = /^ {4}\$ npm run (keys) -- (create (\w+) .*)$/gm;

/** The headers of the keys that the page makes, by client. */
async function keysOf(docs: string, { url }: Database): Promise<Map<string, Record<string, string>>> {
  const keys = new Map<string, Record<string, string>>();
  for (const [, , command = '', client = ''] of docs.matchAll(COMMAND)) {
    const { out, err } = await runCommand(['keys', ...command.split(' ')], { DATABASE_URL: url });
    expect(out, err).toMatch(/^hlb_/);
    keys.set(client, { authorization: `Bearer ${out.trim()}` });
  }
  return keys;
}

it('does what docs/concepts.md says', async () => {
  const docs = await readFile(new URL('../../docs/concepts.md', import.meta.url), 'utf8');
  const recipes = [...docs.matchAll(RECIPE)].map(({ groups = {} }) => groups);
  expect(recipes.length).toBe(docs.match(/^```json$/gm)?.length);
  const database = await createDatabase();
  const { url } = await startApiHere(database, createBroker(), { RELAY: 'off', AUTH: 'required' });
  const operator = (await createApiKey(database, 'operator')).headers;
  const keys = await keysOf(docs, database);
  expect([...keys.keys()]).toEqual(['game1', 'game2']);
  for (const id of ['seller', 'fees', 'user']) await createAccount(url, id, 0, operator);
  for (const id of ['buyer', 'bank']) await createAccount(url, id, 10_000, operator);
  let transferId: string | undefined;
  let refused = 0;
  for (const { method, path = '', client, refusal, body } of recipes) {
    const sent = body?.replace('<transferId of order 1>', transferId ?? '');
    const headers = client ? keys.get(client) : operator;
    const answer = await send(url, method as 'POST', path, sent, headers);
    if (refusal) {
      expect(answer.body, `${method} ${path}`).toMatchObject({ code: refusal });
      refused += 1;
      continue;
    }
    expect([200, 201], JSON.stringify(answer.body)).toContain(answer.status);
    for (const result of answer.body.results ?? []) expect(result.status).toBe(200);
    transferId ??= answer.body.transferId;
  }
  expect(refused).toBe(3);
  const balances = await database.pool.query('SELECT account_id AS id, balance, held FROM account ORDER BY account_id');
  expect(Object.fromEntries(balances.rows.map(({ id, balance, held }) => [id, [balance, held]]))).toEqual({
    ...{ bank: [10_000 - 312 - 100, 0], buyer: [10_000 - 2700, 0], fees: [0, 0] },
    ...{ seller: [2700 + 40, 0], user: [60, 0] },
    ...{ 'game1:alice': [500 - 120, 0], 'game1:shop': [120 - 20, 0], 'game2:bob': [20, 0] },
  });
  expect(await verified(database)).toMatchObject({ offenders: [] });
});
