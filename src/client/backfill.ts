// Missing versions of an account, read from its entries as the events that they were.
import type { BalanceEvent, Entry } from '../shared/contract.ts';
import { type EntriesReader, notYet, pageOf } from './standing.ts';

/** The most versions that are read at once, and held until they are handled. */
export const VERSIONS_MAX = 1000;

/**
 * The first `limit` events after one version and before that of an event in hand, in order. Empty
 * if the account has not reached that event's version: the event belongs to a lost history. @throws
 * while the ledger is not complete that far.
 */
export async function missingBetween(
  client: EntriesReader,
  accountId: string,
  [after, before]: readonly [number, number],
  limit: number,
  signal: AbortSignal,
): Promise<BalanceEvent[]> {
  const entries: Entry[] = [];
  for (let cursor: string | null = String(after + 1 + limit); cursor !== null && entries.length < limit; ) {
    const page = await pageOf(client, accountId, { limit: limit - entries.length, cursor }, signal);
    if (!page || page.version < before) return [];
    entries.push(...page.entries);
    cursor = page.nextCursor;
  }
  if (entries.at(-1)?.version !== after + 1) throw notYet(accountId);
  return entries.reverse().map((entry) => eventOf(accountId, entry));
}

function eventOf(accountId: string, { eventId, type, createdAt, recordedAt, ...change }: Entry): BalanceEvent {
  return {
    specversion: '1.0',
    id: eventId,
    source: '/highload-balance',
    type,
    subject: accountId,
    time: createdAt,
    datacontenttype: 'application/json',
    data: { accountId, ...change },
  };
}
