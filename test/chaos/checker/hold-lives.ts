// The life of each hold, as it follows from the entries of its account alone: after each entry what it was, what was captured of it,
// what is left and until when.
import type { Entry, FinalState } from '../final-state.ts';
import type { HoldStatus } from '../history.ts';

/** A hold as one entry left it. */
export interface HoldLife {
  accountId: string;
  holdId: string;
  version: number;
  status: HoldStatus;
  amount: number;
  captured: number;
  released: number;
  remaining: number;
  expiresAt: string | null;
  createdAt: string;
  updatedAt: string;
  /** Of the entry. */
  reference: string | null;
}

export interface HoldLives {
  /** By account and hold, with a space between; in order of version. */
  lives: ReadonlyMap<string, HoldLife[]>;
  /** What an entry does to a hold that none may do. */
  wrong: { entry: Entry; what: string }[];
}

export function holdLivesOf({ ledger }: FinalState): HoldLives {
  const lives = new Map<string, HoldLife[]>();
  const wrong: HoldLives['wrong'] = [];
  for (const entries of ledger.values()) {
    for (const entry of entries) {
      if (entry.holdId === null) {
        if (entry.heldChange !== 0) wrong.push({ entry, what: 'changes what is held, and names no hold' });
        continue;
      }
      const name = `${entry.accountId} ${entry.holdId}`;
      const life = lives.get(name) ?? [];
      lives.set(name, life);
      const { next, what } = step(life.at(-1), entry);
      for (const one of what) wrong.push({ entry, what: one });
      life.push(next);
    }
  }
  return { lives, wrong };
}

/** As it was at a version of its account. */
export function lifeAt({ lives }: HoldLives, accountId: string, holdId: string | undefined, version: number) {
  return lives.get(`${accountId} ${holdId}`)?.findLast((life) => life.version <= version);
}

/** The hold after an entry, and what of the entry cannot be. */
function step(before: HoldLife | undefined, entry: Entry): { next: HoldLife; what: string[] } {
  const { accountId, version, type, amount, heldChange, createdAt, holdExpiresAt, reference } = entry;
  const what: string[] = [];
  const demand = (isRight: boolean, wrong: string) => {
    if (!isRight) what.push(wrong);
  };
  const holdId = entry.holdId as string;
  const none = { accountId, holdId, amount: 0, captured: 0, released: 0, remaining: 0, expiresAt: null, createdAt };
  const last = before ?? none;
  const next: HoldLife = {
    ...last,
    version,
    status: 'active',
    remaining: last.remaining + heldChange,
    updatedAt: createdAt,
    reference,
  };
  next.expiresAt = holdExpiresAt;

  demand(
    (before === undefined) === (type === 'hold.placed'),
    before ? 'places it again' : 'comes before it was placed',
  );
  demand(before === undefined || before.status === 'active', `comes after it was ${before?.status}`);
  const isDue = last.expiresAt !== null && createdAt >= last.expiresAt;
  demand(isDue === (type === 'hold.expired'), isDue ? 'comes after its expiry' : 'comes before its expiry');
  demand(type === 'hold.changed' || type === 'hold.placed' || holdExpiresAt === last.expiresAt, 'changes its expiry');
  switch (type) {
    case 'hold.placed':
    case 'hold.changed':
      next.amount += heldChange;
      demand(type === 'hold.changed' || heldChange > 0, 'sets nothing aside');
      demand(next.remaining > 0, 'leaves nothing of it');
      break;
    case 'hold.released':
      next.released -= heldChange;
      demand(heldChange < 0, 'releases nothing');
      if (next.remaining === 0) next.status = 'released';
      break;
    case 'hold.expired':
      next.status = 'expired';
      demand(next.remaining === 0, 'leaves some of what expired');
      break;
    case 'balance.debited':
      next.captured -= amount;
      next.released += amount - heldChange;
      demand(amount - heldChange >= 0, 'captures more than it frees');
      if (next.remaining === 0) next.status = 'captured';
      break;
    default:
      what.push('is of a type that no hold has');
  }
  demand(next.remaining >= 0, 'takes more than was left');
  demand(entry.holdRemaining === next.remaining, `says that ${entry.holdRemaining} is left; it is ${next.remaining}`);
  demand(entry.holdStatus === next.status, `calls it ${entry.holdStatus}; it is ${next.status}`);
  return { next, what };
}
