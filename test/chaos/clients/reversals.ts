// Reverses what any client did: whole, in part, twice at once, and what cannot be reversed.
import { eventIdOf } from '../answers.ts';
import type { Applied, Attempt, History, LegAnswer, Operation } from '../history.ts';
import type { Random } from '../random.ts';
import type { Work } from './careful.ts';
import { type Client, operations, updates } from './client.ts';

/** Only what was answered lately is looked for. */
const RECENT = 3000;
const LOOKS_MAX = 200;
const WRONG_CHANCE = 0.1;
/** What made the rich account rich stays. */
const AMOUNT_MAX = 1000;

/** While there is nothing to reverse, it updates. */
export function reversals(client: Client, make = operations(client)): Work {
  const { random, history } = client;
  const update = updates(client, make);
  const reversal = (original: Attempt): Operation => {
    const { operation, result } = original as Attempt & { result: Applied };
    const isWrong = random.chance(WRONG_CHANCE);
    if (isWrong) return make('reversal', [{ accountId: result.legs[0]?.accountId ?? '', amount: null }], wrong(result));
    const legs = operation.kind === 'update' || result.transferId !== null ? result.legs : result.legs.slice(0, 1);
    const [first] = legs as [LegAnswer];
    const reverses = result.transferId ?? eventIdOf(first.accountId, first.version, first.epoch);
    if (legs.length > 2) return make('reversal', legs.map(opposite), { reverses });
    const amount = random.chance(0.6) ? random.between(1, Math.ceil(Math.abs(first.amount) * 0.8)) : undefined;
    if (amount === undefined) {
      return make(
        'reversal',
        legs.map(({ accountId }) => ({ accountId, amount: null })),
        { reverses },
      );
    }
    const parts = legs.map((leg) => ({ accountId: leg.accountId, amount: -Math.sign(leg.amount) * amount }));
    return make('reversal', parts, { reverses, amount });
  };
  let last: Attempt | undefined;
  return {
    next() {
      // The same one again, so that parts of it add up.
      if (!last || !random.chance(0.4)) last = pickOriginal(history, random);
      return last ? reversal(last) : update();
    },
    beside: ({ kind }) => (last && kind === 'reversal' && random.chance(0.2) ? [reversal(last)] : []),
  };
}

const opposite = ({ accountId, amount }: LegAnswer) => ({ accountId, amount: -amount });

/** A leg that does not stand for its transfer; or, of what has no other, its event by a version that may be anything. */
function wrong({ legs, transferId }: Applied): Pick<Operation, 'reverses'> {
  const [first] = legs as [LegAnswer];
  const ids = legs.map(({ accountId, version, epoch }) => eventIdOf(accountId, version, epoch));
  const { accountId, epoch } = first;
  return { reverses: transferId === ids[0] || ids.length === 1 ? eventIdOf(accountId, 0, epoch) : (ids[0] as string) };
}

function pickOriginal({ attempts }: History, random: Random): Attempt | undefined {
  for (let look = 0; look < LOOKS_MAX && attempts.length > 0; look += 1) {
    const one = attempts[Math.max(0, attempts.length - 1 - Math.floor(random() * RECENT))];
    if (one?.result.kind !== 'applied' || one.isReuse) continue;
    if (one.result.legs.some(({ amount }) => amount > AMOUNT_MAX)) continue;
    const { kind } = one.operation;
    if (kind === 'update' || kind === 'transfer' || kind === 'capture') return one;
  }
  return undefined;
}
