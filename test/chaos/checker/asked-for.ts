// Nothing is in the ledger that nobody asked for: each entry is a leg of an operation, under the name of its client, with what
// the request said. What nobody asks for is the expiry of a hold; see holds.ts.
import type { Entry } from '../final-state.ts';
import type { Operation } from '../history.ts';
import { metadataOf } from '../requests.ts';
import type { Cases, CheckInput, Violation } from './evidence.ts';

export function checkAskedFor({ final }: CheckInput, { byId }: Cases): Violation[] {
  const violations: Violation[] = [];
  for (const [accountId, entries] of final.ledger) {
    for (const entry of entries) {
      if (entry.type.startsWith('account.') || entry.type === 'hold.expired') continue; // see changes.ts and holds.ts
      const asked = byId.get(entry.reference ?? '')?.operation;
      const strange = asked ? strangeIn(asked, entry) : 'nobody asked for';
      if (!strange) continue;
      violations.push({ check: 'asked for', accountId, what: `${strange} the entry ${JSON.stringify(entry)}` });
    }
  }
  return violations;
}

/** Sorted, as it is hashed. */
export function metadataIn(metadata: Readonly<Record<string, string>>): string {
  return JSON.stringify(Object.fromEntries(Object.entries(metadata).sort(([one], [other]) => (one < other ? -1 : 1))));
}

/** Of entries that move no money. */
const TYPES: Partial<Record<Operation['kind'], string>> = {
  hold: 'hold.placed',
  release: 'hold.released',
  'hold change': 'hold.changed',
};

/** What of it is not as it was asked for; undefined: nothing. */
function strangeIn(operation: Operation, entry: Entry): string | undefined {
  const { kind, legs, actor, hold, reverses = null } = operation;
  const { accountId, amount } = entry;
  const leg = legs.find((one) => one.accountId === accountId && (one.amount === null || one.amount === amount));
  if (!leg) return 'nobody asked for the account or the amount of';
  if (entry.actor !== actor) return 'nobody of that name asked for';
  const metadata = metadataOf(operation);
  if (entry.metadata !== (metadata ? metadataIn(metadata) : null)) return 'other metadata was given with';
  if (entry.reverses !== reverses) return 'another reversal was asked for than';
  if (entry.holdId !== (leg === legs[0] ? (hold?.holdId ?? null) : null)) return 'another hold was meant by';
  const type = TYPES[kind] ?? (amount > 0 ? 'balance.credited' : 'balance.debited');
  return entry.type === type ? undefined : 'something else was asked for than';
}
