// Pages of the ledger: each has every version from where it begins, and never one above the first that the ledger lacks.
import type { PageReading } from '../history.ts';
import type { CheckInput, Violation } from './evidence.ts';

export function checkHistories({ history }: Pick<CheckInput, 'history'>): Violation[] {
  return history.pages.flatMap((page) => {
    const what = problemOf(page);
    const { accountId, endMs: atMs } = page;
    return what === undefined
      ? []
      : [{ check: 'histories', accountId, atMs, what: `${what}: ${JSON.stringify(page)}` }];
  });
}

/** The first one. */
function problemOf({ version, ledgerVersion, limit, cursor, entries, nextCursor }: PageReading): string | undefined {
  const end = ledgerVersion ?? -1;
  if (end > version) return 'the ledger is ahead of the account';
  const newest = Math.min(end, (cursor ?? Number.POSITIVE_INFINITY) - 1);
  const oldest = Math.max(0, newest - limit + 1);
  const versions = Array.from({ length: newest - oldest + 1 }, (_, place) => newest - place);
  if (versions.length !== entries.length || versions.some((wanted, place) => entries[place]?.version !== wanted)) {
    return `a page with the versions ${newest} to ${oldest} has others`;
  }
  const isStep = entries.every(({ balance, amount }, place) => {
    const before = entries[place + 1];
    return !before || before.balance + amount === balance;
  });
  if (!isStep) return 'a balance is not the one before plus its amount';
  if (nextCursor !== (oldest > 0 && entries.length > 0 ? String(oldest) : null))
    return 'the next page begins elsewhere';
  return undefined;
}
