// What the high-availability test forgives: answers about changes that asynchronous replication
// lost. They settled their requests all the same, and other requests need an answer.
import { describe, expect, it } from 'vitest';
import type { CheckInput } from '../chaos/checker/evidence.ts';
import { checkRecovery } from '../chaos/checker/recovery.ts';
import { type Attempt, History, type Operation, type Result } from '../chaos/history.ts';
import { withoutLost } from '../ha/loss.ts';

const CALM = [
  { startMs: 1000, endMs: 4000 },
  { startMs: 10_000, endMs: 13_000 },
];
const STRUCK = { startMs: 4001, endMs: 9000 };
const HOLD = { holdId: 'h1' };

let count = 0;

function attempt(startMs: number, result: Result, what: Partial<Operation> = {}): Attempt {
  count += 1;
  const always = { id: `client-0/${count}`, kind: 'update', key: null, actor: 'shop' } as const;
  const operation = { ...always, legs: [{ accountId: 'a', amount: 1 }], ...what } as const;
  return { operation, api: 'api-1', startMs, endMs: startMs + 100, result };
}

/** Answered, and in no ledger. */
function lost(startMs: number, what?: Partial<Operation>): Attempt {
  const leg = { accountId: 'a', amount: 1, balance: 1, version: 1, epoch: 1 };
  const answer = { replayed: false, legs: [leg], createdAt: '2026-12-01T05:00:00.000Z', transferId: null, hold: null };
  return attempt(startMs, { kind: 'applied', ...answer }, what);
}
const unanswered = (startMs: number) => attempt(startMs, { kind: 'unknown', why: 'the connection was reset' });
const declinedOf = (startMs: number) =>
  attempt(
    startMs,
    { kind: 'declined', code: 'hold_amount_exceeded', replayed: false, accountId: 'a', balance: 1, version: 1 },
    { kind: 'capture', hold: HOLD },
  );

/** When the requests began that lack an answer though nothing was wrong. */
function unsettled(...attempts: Attempt[]) {
  const history = new History();
  history.attempts.push(...attempts);
  const final = { ledger: new Map(), epochs: [1, 2] };
  const seen = { history, calm: CALM, final, subscriber: { events: [], broken: [], dead: [] } };
  return checkRecovery(withoutLost(seen as unknown as CheckInput, STRUCK)).map(({ atMs }) => atMs);
}

describe('without what was lost', () => {
  it('an answer of the moment before, which no standby had yet, settled its request', () => {
    expect(unsettled(lost(3800))).toEqual([]);
  });

  it('so did a decline about a hold of which something was lost later, before and after', () => {
    expect(unsettled(declinedOf(2000), lost(5000, { kind: 'release', hold: HOLD }), declinedOf(11_000))).toEqual([]);
  });

  it('a request without an answer is as unsettled as ever', () => {
    expect(unsettled(unanswered(2000), lost(3800), unanswered(3700), unanswered(6000), unanswered(11_000))).toEqual([
      2000, 3700, 11_000,
    ]);
  });
});
