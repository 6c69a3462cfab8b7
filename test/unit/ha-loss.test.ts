// What the high-availability test forgives: answers that asynchronous replication lost, from the
// first of them on; and nothing before it.
import { describe, expect, it } from 'vitest';
import type { CheckInput } from '../chaos/checker/evidence.ts';
import { checkRecovery } from '../chaos/checker/recovery.ts';
import { type Attempt, History, type Result } from '../chaos/history.ts';
import { withoutLost } from '../ha/loss.ts';

const CALM = { startMs: 1000, endMs: 4000 };
const STRUCK = { startMs: 4001, endMs: 9000 };

function attempt(startMs: number, endMs: number, result: Result): Attempt {
  const operation = { id: `client-0/${startMs}`, kind: 'update', legs: [{ accountId: 'a', amount: 1 }] } as const;
  return { operation: { ...operation, key: null, actor: 'shop' }, api: 'api-1', startMs, endMs, result };
}

/** Answered, and in no ledger. */
const lost = (startMs: number, endMs: number) => {
  const leg = { accountId: 'a', amount: 1, balance: 1, version: 1, epoch: 1 };
  const createdAt = '2026-12-01T05:00:00.000Z';
  return attempt(startMs, endMs, {
    ...{ kind: 'applied', replayed: false, legs: [leg], createdAt, transferId: null, hold: null },
  });
};
const unanswered = (startMs: number, endMs: number) =>
  attempt(startMs, endMs, { kind: 'unknown', why: 'the connection was reset' });

function judged(...attempts: Attempt[]) {
  const history = new History();
  history.attempts.push(...attempts);
  const seen = {
    ...{ history, calm: [CALM, { startMs: 10_000, endMs: 13_000 }] },
    ...{ final: { ledger: new Map(), epochs: [1, 2] }, subscriber: { events: [], broken: [], dead: [] } },
  };
  return checkRecovery(withoutLost(seen as unknown as CheckInput, STRUCK)).map(({ atMs }) => atMs);
}

describe('without what was lost', () => {
  it('is what was answered just before standbys were kept from having it', () => {
    expect(judged(lost(3600, 3990))).toEqual([]);
  });

  it('is nothing before the first of it, and nothing after', () => {
    expect(
      judged(unanswered(2000, 2100), lost(3600, 3990), unanswered(3700, 3950), unanswered(11_000, 11_100)),
    ).toEqual([2000, 11_000]);
  });
});
