// Time is the database's: the clock of a machine that serves the API decides nothing.
import { afterAll, expect, it } from 'vitest';
import {
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  drained,
  environmentOf,
  send,
  spawnProcess,
  startWorkerHere,
} from '../support/harness.ts';

afterAll(cleanUp);

const AHEAD_MS = 400 * 24 * 3_600_000;
const NEAR_MS = 60_000;

/** Loaded before all else: a Date that is ahead. */
const CLOCK = `
  const Real = Date;
  globalThis.Date = class extends Real {
    constructor(...given) { given.length === 0 ? super(Real.now() + ${AHEAD_MS}) : super(...given); }
    static now() { return Real.now() + ${AHEAD_MS}; }
  };`;

it('answers, records and looks back by the clock of the database where that of the API is 400 days ahead', async () => {
  const database = await createDatabase();
  const broker = createBroker();
  const api = await spawnProcess('api', {
    ...environmentOf(database, broker),
    NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(CLOCK)}`,
  });
  const [started] = api.lines('api started');
  expect(Date.parse(String(started?.time)) - Date.now()).toBeGreaterThan(AHEAD_MS - NEAR_MS); // its clock is ahead indeed
  const url = api.url();
  await startWorkerHere(database, broker);
  const isNow = (at: string) => Math.abs(Date.parse(at) - Date.now()) < NEAR_MS;

  await createAccount(url, 'alice');
  const { body: update } = await send(url, 'POST', '/v1/balance-updates', { accountId: 'alice', amount: 5 });
  const { body: changed } = await send(url, 'PATCH', '/v1/accounts/alice', { overdraftLimit: 10 });
  expect([update.createdAt, changed.updatedAt, changed.createdAt].map(isNow)).toEqual([true, true, true]);

  const past = (at: Date) => send(url, 'GET', `/v1/accounts/alice/balance?at=${at.toISOString()}`);
  expect((await past(new Date())).body).toMatchObject({ balance: 5, version: 2 });
  expect((await past(new Date(Date.now() + NEAR_MS))).body).toMatchObject({ code: 'invalid_request' });
  await drained(database);
  const { body } = await send(url, 'GET', '/v1/accounts/alice/entries');
  expect(body.entries.map(({ createdAt }: { createdAt: string }) => isNow(createdAt))).toEqual([true, true, true]);
});
