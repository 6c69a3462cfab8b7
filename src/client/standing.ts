// Asks the ledger how its current history of an account relates to an event and to what was
// handled.
import type { BalanceEvent, EntriesPage, Entry } from '../shared/contract.ts';
import { before, type Handled, isHandledIn, isSame, NOTHING, sharedAt } from './history.ts';

/** Entries of one page. */
const PAGE_MAX = 1000;
const DEADLINE_MS = 10_000;

/** The methods that are needed of a client. */
export interface EntriesReader {
  readEntries(
    accountId: string,
    page: { limit: number; cursor?: string | undefined },
    options: { signal: AbortSignal; deadlineMs: number },
  ): Promise<EntriesPage>;
}

/**
 * - `superseded`: the event is not in the current history.
 * - `whole`: the event is in it, and so is everything handled; `before` is the state as if
 *   everything before the event were handled.
 * - `cut`: the event is in it, but what was handled is not; it is shared up to `shared`. Undefined
 *   if the epochs agree but the balances do not, so that the point cannot be determined.
 */
export type Standing =
  | { kind: 'superseded' }
  | { kind: 'whole'; before: Handled }
  | { kind: 'cut'; shared: Handled | undefined };

/**
 * Reads the entries from the newest to the last one that both histories share. @throws while the
 * ledger is not complete that far.
 */
export async function standingOf(
  client: EntriesReader,
  event: BalanceEvent,
  last: Handled,
  signal: AbortSignal,
): Promise<Standing> {
  const { accountId, version } = event.data;
  const steps: [number, number][] = [];
  let above: Entry | undefined;
  let isPresent = false;
  let shared = last.version === NOTHING.version ? last : undefined;
  for (let cursor: string | null | undefined; cursor !== null && !(isPresent && shared); ) {
    const page = await pageOf(client, accountId, { limit: PAGE_MAX, cursor }, signal);
    // The account row itself never lags: a version it has not reached does not exist.
    if (!page || page.version < version) return { kind: 'superseded' };
    for (const entry of page.entries) {
      if (!follows(entry, above, page)) throw notYet(accountId);
      if (entry.version === version && !isOf(entry, event)) return { kind: 'superseded' };
      if (above && above.version < version && above.epoch !== entry.epoch) steps.push([entry.version, entry.epoch]);
      above = entry;
      isPresent ||= entry.version === version;
      if (entry.version <= last.version && isHandledIn(entry.epoch, entry.version, last))
        shared ??= sharedAt(entry, last);
      if (isPresent && shared) break;
    }
    cursor = page.nextCursor;
  }
  if (!isPresent || (!shared && above?.version !== 0)) throw notYet(accountId);
  if (shared?.version !== last.version) return { kind: 'cut', shared: shared ?? NOTHING };
  const { balance = shared.balance, held = shared.held } = last;
  if (balance !== shared.balance || held !== shared.held) return { kind: 'cut', shared: undefined };
  return { kind: 'whole', before: before(event.data, [...steps, ...(last.earlier ?? [])]) };
}

/** Undefined where the current history has no such account. */
export async function pageOf(
  client: EntriesReader,
  accountId: string,
  page: { limit: number; cursor: string | undefined },
  signal: AbortSignal,
): Promise<EntriesPage | undefined> {
  try {
    return await client.readEntries(accountId, page, { signal, deadlineMs: DEADLINE_MS });
  } catch (error) {
    if ((error as { code?: unknown } | null)?.code === 'account_not_found') return undefined;
    throw error;
  }
}

/** No entry is missing between the two, and the history was not cut between two pages. */
function follows(entry: Entry, above: Entry | undefined, page: EntriesPage): boolean {
  if (!above) return entry.version === page.ledgerVersion;
  return entry.version === above.version - 1 && entry.epoch === (above.previousEpoch ?? NOTHING.epoch);
}

function isOf(entry: Entry, { id, data }: BalanceEvent): boolean {
  const { amount, heldChange } = data;
  return entry.eventId === id && isSame(entry, data) && entry.amount === amount && entry.heldChange === heldChange;
}

export const notYet = (accountId: string) => new Error(`the ledger does not have all entries of ${accountId} yet`);
