// Places holds, and captures, releases, changes and reads those that any client placed: several may want the same one at once.
// Many are left to expire.
import { pickHolder, pickReceiver } from '../accounts.ts';
import { holdStateIn } from '../answers.ts';
import { signedBy } from '../attempts.ts';
import { type Attempt, now, type Operation } from '../history.ts';
import type { Random } from '../random.ts';
import type { Work } from './careful.ts';
import { type Client, type KnownHold, operations } from './client.ts';

const AMOUNT_MAX = 25;
/** Of those that clients remember, the newest. */
const KNOWN_MAX = 40;
const PLACE_CHANCE = 0.45;
const READ_CHANCE = 0.2;
/** Some expire so soon, the others never: the run waits for the last of them. */
const HOLD_SECONDS_MAX = 8;

export function holds(client: Client, make = operations(client)): Work {
  const { random, holds: known } = client;
  return {
    next() {
      if (known.length === 0 || random.chance(PLACE_CHANCE)) {
        const hold = { accountId: pickHolder(random), amount: random.between(1, AMOUNT_MAX) };
        return placing(make, random, hold);
      }
      return using(make, random, random.pick(known));
    },
    async after(made) {
      remember(client, made);
      forget(client, made);
      if (known.length > 0 && random.chance(READ_CHANCE)) await readHold(client, random.pick(known));
    },
  };
}

export function remember({ holds: known, random }: Client, { operation, result }: Attempt): void {
  const { kind, hold, legs } = operation;
  if (kind !== 'hold' || !hold || result.kind !== 'applied') return;
  known.push({ accountId: legs[0].accountId, holdId: hold.holdId, amount: operation.amount ?? 1 });
  if (known.length > KNOWN_MAX) known.splice(random.between(0, KNOWN_MAX - 1), 1);
}

/** Most of those that are over: the others find out what is answered then. */
function forget({ holds: known, random }: Client, { operation, result }: Attempt): void {
  if (result.kind !== 'applied' || result.hold === null || result.hold.status === 'active') return;
  const { accountId } = operation.legs[0];
  const place = known.findIndex((one) => one.holdId === operation.hold?.holdId && one.accountId === accountId);
  if (place >= 0 && random.chance(0.8)) known.splice(place, 1);
}

type Make = ReturnType<typeof operations>;

/** Its id is that of the operation, as an account id may be written. */
export function placing(make: Make, random: Random, { accountId, amount }: Omit<KnownHold, 'holdId'>): Operation {
  const draw = random();
  const expiresInSeconds =
    draw < 0.5 ? random.between(1, 3) : draw < 0.7 ? random.between(4, HOLD_SECONDS_MAX) : undefined;
  const operation = make('hold', [{ accountId, amount: 0 }], { amount, key: null });
  const holdId = operation.id.replaceAll('/', ':');
  return { ...operation, hold: { holdId, ...(expiresInSeconds === undefined ? {} : { expiresInSeconds }) } };
}

/** What may be done to a hold. Amounts are guessed, so some are too high. */
function using(make: Make, random: Random, { accountId, holdId, amount: placed }: KnownHold): Operation {
  const draw = random();
  const amount = random.chance(0.3) ? undefined : random.between(1, Math.max(1, Math.ceil(placed * 0.7)));
  const some = amount === undefined ? {} : { amount };
  if (draw < 0.5) {
    const moved = amount ?? null;
    const to = random.chance(0.5) ? pickReceiver(random) : accountId;
    const legs = [{ accountId, amount: moved === null ? null : -moved }];
    if (to !== accountId) legs.push({ accountId: to, amount: moved });
    const isFinal = random.chance(0.5);
    // Final is what it is when left out.
    return make('capture', legs, { ...some, hold: { holdId, ...(isFinal && random.chance(0.5) ? {} : { isFinal }) } });
  }
  const legs = [{ accountId, amount: 0 }];
  if (draw < 0.75) return make('release', legs, { ...some, hold: { holdId } });
  const total = random.chance(0.7) ? { amount: random.between(1, 2 * placed) } : {};
  const expiry = random.pick([{ expiresInSeconds: random.between(1, 3) }, { expiresInSeconds: null }]);
  return make('hold change', legs, {
    ...total,
    hold: { holdId, ...(total.amount === undefined || random.chance(0.4) ? expiry : {}) },
  });
}

export async function readHold(client: Client, { accountId, holdId }: KnownHold): Promise<void> {
  const { random, http, targets, history, actor } = client;
  const path = `/v1/accounts/${accountId}/holds/${holdId}`;
  const startMs = now();
  const reply = await http.send(random.pick(targets).port, 'GET', path, { headers: signedBy(client, actor) });
  if (reply.kind !== 'answer' || reply.status === 503) return;
  const endMs = now();
  const state = reply.status === 200 ? holdStateIn(accountId, holdId, reply.body as object) : undefined;
  if (state) history.holdReadings.push({ accountId, startMs, endMs, state });
  else history.unexpected.push({ atMs: endMs, what: `reading the hold ${holdId}: ${JSON.stringify(reply)}` });
}
