// What a database without synchronous replication lost: answers whose changes are not in its
// history. And the evidence without them, in which every other guarantee must still hold.
import type { CheckInput, Window } from '../chaos/checker/evidence.ts';
import type { Entry, FinalState } from '../chaos/final-state.ts';
import { type Attempt, History, type Result } from '../chaos/history.ts';

export interface LostChange {
  accountId: string;
  version: number;
  epoch: number;
}

/** The changes that an answer promised and the history lacks. */
export function lostIn(final: FinalState, { operation, result }: Attempt): LostChange[] {
  if (result.kind !== 'applied') return [];
  return result.legs.filter(({ accountId, version, epoch }) => {
    const entry = final.ledger.get(accountId)?.[version];
    return entry?.epoch !== epoch || entry.reference !== operation.id;
  });
}

/**
 * Whether the answer is about something that the history lacks. The answer to a hold that was
 * placed names no version.
 */
export function isLost(final: FinalState, attempt: Attempt): boolean {
  const { operation, result } = attempt;
  if (result.kind !== 'applied') return false;
  if (operation.kind !== 'hold') return lostIn(final, attempt).length > 0;
  const entries: readonly Entry[] = final.ledger.get(operation.legs[0].accountId) ?? [];
  return !entries.some(({ reference, createdAt }) => reference === operation.id && createdAt === result.createdAt);
}

const KEY_IN_USE = new Set(['idempotency_key_reused', 'hold_exists']);
/** Of the operation that an operation means to take the key of, or of itself. */
const firstUser = (id: string) => id.replace(/\/misuse-\d+$/, '');
/** Ids among them, whole. */
const wordsOf = (text: string) => text.split(/[^\w:/-]+/).map((word) => word.replace(/:$/, ''));
const UNKNOWN: Result = { kind: 'unknown', why: 'the database lost it', wasAnswered: true };

/**
 * Counts each lost answer as one that says nothing, and so each decline and each look at a hold
 * that was answered while the standbys lagged: what they were decided on may be lost. A retry may
 * then take effect, once, and so may another request under its key. A standby lags by a moment
 * without any fault too, so the first lost answer may be older than the strike.
 * @param struck from the moment that kept changes from the standbys to the end of their leader.
 */
export function withoutLost(input: CheckInput, struck: Window): CheckInput {
  const { history, final, subscriber } = input;
  const lost = history.attempts.filter((attempt) => isLost(final, attempt));
  const lagging = { ...struck, startMs: Math.min(struck.startMs, ...lost.map(({ startMs }) => startMs)) };
  const isLate = ({ endMs }: Window) => endMs >= lagging.startMs && endMs <= lagging.endMs;
  const lostHolds = new Set(lost.flatMap(({ operation }) => operation.hold?.holdId ?? []));
  const lostIds = new Set([...lost.map(({ operation }) => operation.id), ...lostHolds]);
  const isDoubtful = (attempt: Attempt) => {
    const { operation, result } = attempt;
    if (result.kind === 'applied') return isLost(final, attempt);
    return result.kind === 'declined' && (isLate(attempt) || lostHolds.has(operation.hold?.holdId ?? ''));
  };
  const forgotten = new Set(history.attempts.filter(isDoubtful).map(({ operation }) => firstUser(operation.id)));
  const kept = new History();
  for (const one of history.attempts) {
    const { operation, result } = one;
    const isForgotten = forgotten.has(firstUser(operation.id));
    // Another request has the key now, or the hold was as it is not any more. These changed
    // nothing.
    const isRefusedKey = isForgotten && result.kind === 'refused' && KEY_IN_USE.has(result.code);
    const isAboutHold = isLate(one) || lostHolds.has(operation.hold?.holdId ?? '');
    if (isRefusedKey || (result.kind === 'refused' && operation.hold && isAboutHold)) continue;
    if (isDoubtful(one)) kept.attempts.push({ ...one, result: UNKNOWN });
    // Its key was free again: it is an operation like any other.
    else if (isForgotten && one.isReuse) kept.attempts.push({ ...one, isReuse: false });
    else kept.attempts.push(one);
  }
  kept.readings.push(...history.readings.filter((reading) => !isLate(reading)));
  kept.pages.push(...history.pages.filter(({ endMs }) => endMs > lagging.endMs));
  kept.holdReadings.push(
    ...history.holdReadings.filter((reading) => !isLate(reading) && !lostHolds.has(reading.state.holdId)),
  );
  kept.openings.push(...history.openings);
  kept.unexpected.push(...history.unexpected.filter(({ what }) => !wordsOf(what).some((word) => lostIds.has(word))));
  const isInHistory = ({ accountId, version, epoch }: LostChange) =>
    final.ledger.get(accountId)?.[version]?.epoch === epoch;
  const newest = final.epochs.at(-1) ?? 0;
  const events = subscriber.events.filter(({ event: { data } }) => data.epoch >= newest || isInHistory(data));
  return { ...input, history: kept, subscriber: { ...subscriber, events } };
}
