// The entries that a subscriber asks may change while it reads them, and the ledger may not have
// all of them yet.
import { expect, it } from 'vitest';
import type { BalanceEvent } from '../../src/client/events.ts';
import { isSame } from '../../src/client/history.ts';
import { standingOf } from '../../src/client/standing.ts';
import type { EntriesPage, Entry } from '../../src/shared/contract.ts';

const entry = (version: number, epoch: number, previousEpoch: number): Entry => ({
  ...{ eventId: `a:${version}:${epoch}`, type: 'balance.credited', version, epoch, previousEpoch, asset: 'UNIT' },
  ...{ amount: 1, heldChange: 0, balance: version, held: 0, createdAt: '', recordedAt: '' },
});
const page = (entries: Entry[], nextCursor: string | null): EntriesPage => ({
  ...{ accountId: 'a', version: 9, ledgerVersion: 9, entries, nextCursor },
});

/** Of version 9 and epoch 2, to a subscriber that has handled up to version 8 of epoch 1. */
function standing(...pages: EntriesPage[]) {
  const event = { id: 'a:9:2', data: { accountId: 'a', ...entry(9, 2, 2) } } as unknown as BalanceEvent;
  const left = [...pages];
  const client = { readEntries: async () => left.shift() as EntriesPage };
  return standingOf(client, event, { version: 8, epoch: 1 }, new AbortController().signal);
}

it('is a cut where the entries of all pages are one history', async () => {
  const pages = [page([entry(9, 2, 2), entry(8, 2, 2)], '8'), page([entry(7, 2, 1), entry(6, 1, 1)], null)];
  expect(await standing(...pages)).toMatchObject({ kind: 'cut', shared: { version: 6, epoch: 1, balance: 6 } });
});

it.each([
  ['an entry is missing between two', [page([entry(9, 2, 2), entry(7, 1, 1)], null)]],
  ['the newest is missing', [page([entry(8, 1, 1)], null)]],
  [
    'the history was cut between two pages',
    [page([entry(9, 2, 2), entry(8, 2, 2)], '8'), page([entry(7, 1, 1)], null)],
  ],
  ['the oldest ones are missing', [page([entry(9, 2, 2)], null)]],
])('is not known while %s', async (_, pages) => {
  await expect(standing(...pages)).rejects.toThrow('the ledger does not have all entries of a yet');
});

it.each(['version', 'epoch', 'balance', 'held'] as const)('takes two changes of another %s for two', (member) => {
  const one = { version: 9, epoch: 2, balance: 9, held: 0 };
  expect(isSame(one, { ...one, earlier: [[5, 1]] })).toBe(true);
  expect(isSame(one, { ...one, [member]: 1 })).toBe(false);
});

it('takes an event for one of another history where its entry says another amount', async () => {
  const pages = page([{ ...entry(9, 2, 2), amount: 2 }, entry(8, 1, 1)], null);
  expect(await standing(pages)).toEqual({ kind: 'superseded' });
});
