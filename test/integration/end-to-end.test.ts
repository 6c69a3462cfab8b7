import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  drained,
  send,
  sendPatiently,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';

let url: string;
let database: Awaited<ReturnType<typeof createDatabase>>;

beforeAll(async () => {
  database = await createDatabase();
  const broker = createBroker();
  ({ url } = await startApiHere(database, broker));
  await startWorkerHere(database, broker);
});
afterAll(cleanUp);

it('answers an update with the new balance and records it in the ledger', async () => {
  await createAccount(url, 'alice');
  const update = await send(url, 'POST', '/v1/balance-updates', {
    accountId: 'alice',
    amount: 250,
    reference: 'order 1',
  });
  expect(update.status).toBe(200);
  expect(update.body).toEqual({
    accountId: 'alice',
    amount: 250,
    balance: 250,
    version: 1,
    eventId: expect.stringMatching(/^alice:1:[0-9a-z]{8}$/),
    createdAt: expect.stringMatching(/^\d{4}-.*Z$/),
  });
  await until(
    'the entry is in the ledger',
    async () => (await send(url, 'GET', '/v1/accounts/alice/entries')).body.ledgerVersion === 1,
  );
  const { body } = await send(url, 'GET', '/v1/accounts/alice/entries');
  expect(body).toEqual({
    accountId: 'alice',
    version: 1,
    ledgerVersion: 1,
    nextCursor: null,
    entries: [
      {
        eventId: update.body.eventId,
        type: 'balance.credited',
        version: 1,
        epoch: expect.any(Number),
        previousEpoch: body.entries[0].epoch,
        asset: 'UNIT',
        amount: 250,
        heldChange: 0,
        balance: 250,
        held: 0,
        reference: 'order 1',
        createdAt: update.body.createdAt,
        recordedAt: expect.any(String),
      },
      expect.objectContaining({ type: 'account.opened', version: 0, epoch: body.entries[0].epoch }),
    ],
  });
});

it('takes a hot account from many clients at once and loses nothing', async () => {
  await createAccount(url, 'hot', 300);
  const answers = await Promise.all(
    Array.from({ length: 400 }, () =>
      sendPatiently(url, 'POST', '/v1/balance-updates', { accountId: 'hot', amount: -1 }),
    ),
  );
  const accepted = answers.filter((answer) => answer.status === 200);
  expect(accepted).toHaveLength(300);
  expect(answers.filter((answer) => answer.body.code === 'insufficient_funds')).toHaveLength(100);
  expect(new Set(accepted.map((answer) => answer.body.version)).size).toBe(300);
  for (const { body } of accepted) expect(body.balance).toBe(301 - body.version); // version 1 was the credit
  expect(await drained(database)).toMatchObject({ ledgerEntries: 304, pendingChanges: 0, offendingAccounts: 0 });
});
