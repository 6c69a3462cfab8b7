// The consumer's rule: how an event relates to the last handled change of its account. Pure;
// docs/events.md describes it. An epoch belongs to one run of the database, so version and epoch
// together name one change and all before it.
import type { ChangeBody } from '../shared/contract.ts';

/** Steps from one epoch to the next that are remembered: as many restarts in which the account changed. */
const EARLIER_MAX = 8;

/** How far an account was handled: store it with the effects of the event, as JSON. */
export interface Handled {
  /** -1 where nothing was handled: the opening is version 0. */
  version: number;
  /** 0 where nothing was handled. */
  epoch: number;
  /** What that change left, minor units. Without them a fork is not noticed. */
  balance?: number | undefined;
  held?: number | undefined;
  /** Where earlier epochs of the account ended, newest first: with them the rewind after a cut is exact in every case. */
  earlier?: readonly (readonly [version: number, epoch: number])[] | undefined;
}

export const NOTHING: Handled = { version: -1, epoch: 0, balance: 0, held: 0 };

type Change = Pick<ChangeBody, 'version' | 'epoch' | 'previousEpoch' | 'amount' | 'heldChange' | 'balance' | 'held'>;

/**
 * - `next`: handle it.
 * - `later`: versions before it are missing.
 * - `repeat`: exactly this change was already handled.
 * - `superseded`: of a history that was abandoned before `last`.
 * - `misfit`: it does not follow from what was handled. One of the two belongs to another history;
 *   the entries show which.
 */
export type Meaning = 'next' | 'later' | 'repeat' | 'superseded' | 'misfit';

export function meaningOf(change: Change, last: Handled): Meaning {
  const { version, epoch, previousEpoch = NOTHING.epoch } = change;
  if (version > last.version + 1) return 'later';
  if (version === last.version + 1) return previousEpoch === last.epoch && followsIn(change, last) ? 'next' : 'misfit';
  if (epoch > last.epoch) return 'misfit';
  return isHandledIn(epoch, version, last) ? 'repeat' : 'superseded';
}

/** Whether the amounts of a change continue from what the last one left. */
function followsIn({ amount, heldChange, balance, held }: Change, last: Handled): boolean {
  return (
    balance - amount === (last.balance ?? balance - amount) && held - heldChange === (last.held ?? held - heldChange)
  );
}

/**
 * Whether a version up to the last one was handled in this epoch. Before the steps that are remembered, an earlier epoch is
 * taken for that of the same history.
 */
export function isHandledIn(epoch: number, version: number, last: Handled): boolean {
  const { epoch: newest, earlier = [] } = last;
  if (version === last.version) return epoch === newest;
  const step = earlier.findLastIndex(([endedAt]) => version <= endedAt);
  const epochThen = step < 0 ? newest : (earlier[step] as readonly [number, number])[1];
  return step === earlier.length - 1 ? epoch <= epochThen : epoch === epochThen;
}

/** Whether both are the same change of an account, and left the same. */
export function isSame(one: Handled, other: Handled): boolean {
  const { version, epoch, balance, held } = one;
  return version === other.version && epoch === other.epoch && balance === other.balance && held === other.held;
}

/** Once a change was handled that follows. */
export function after(last: Handled, change: Change): Handled {
  return at(change.version, change.epoch, change.balance, change.held, stepped(last, change.epoch));
}

/**
 * The state as if everything before a change were handled. @param steps where epochs ended before
 * it, newest first.
 */
export function before(change: Change, steps: NonNullable<Handled['earlier']> = []): Handled {
  const { version, previousEpoch = NOTHING.epoch, balance, amount, held, heldChange } = change;
  return at(version - 1, previousEpoch, balance - amount, held - heldChange, steps.slice(0, EARLIER_MAX));
}

/** The last change of the current history that `last` shares. */
export function sharedAt({ version, epoch, balance, held }: Change, { earlier = [] }: Handled): Handled {
  return at(
    version,
    epoch,
    balance,
    held,
    earlier.filter(([endedAt]) => endedAt < version),
  );
}

function stepped({ version, epoch, earlier = [] }: Handled, to: number): NonNullable<Handled['earlier']> {
  return epoch === to ? earlier : [[version, epoch] as const, ...earlier].slice(0, EARLIER_MAX);
}

function at(version: number, epoch: number, balance: number, held: number, earlier: NonNullable<Handled['earlier']>) {
  return { version, epoch, balance, held, earlier };
}

/** What was stored, checked. @throws TypeError */
export function checkedHandled(stored: Handled | null | undefined): Handled {
  if (stored === undefined || stored === null) return NOTHING;
  const { version, epoch, balance = 0, held = 0, earlier = [] } = stored;
  const isWhole = [version, epoch, balance, held, ...(Array.isArray(earlier) ? earlier.flat() : [earlier])].every(
    (one) => Number.isSafeInteger(one),
  );
  if (isWhole && version >= NOTHING.version && epoch >= NOTHING.epoch) return stored;
  throw new TypeError('lastHandled must return what was handled last, with version and epoch as numbers, or undefined');
}
