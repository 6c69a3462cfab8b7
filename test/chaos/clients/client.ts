// What all clients have in common: who they are, how long they wait, and how they find out what became of an operation.
import { setTimeout as delay } from 'node:timers/promises';
import { ACTORS, type Actor, pickAccount, pickAmount, type Tokens } from '../accounts.ts';
import { type Api, attempt } from '../attempts.ts';
import { type Attempt, DECLINES, type History, type Leg, type Operation, type Result } from '../history.ts';
import type { HttpClient } from '../http.ts';
import type { Random } from '../random.ts';

export interface ClientContext {
  history: History;
  random: Random;
  tokens: Tokens;
  /** The API processes; a request goes to any of them. */
  targets: readonly Api[];
  /** Aborted when no new operation is to begin. */
  winding: AbortSignal;
  /** Aborted when even unsettled operations are given up. */
  over: AbortSignal;
}

/** A hold that some client placed. All clients may use it. */
export interface KnownHold {
  accountId: string;
  holdId: string;
  amount: number;
}

export interface Client extends ClientContext {
  name: string;
  /** Whose API key it signs with. */
  actor: Actor;
  http: HttpClient;
  /** Of all clients. */
  holds: KnownHold[];
  /** Of all clients: operations whose outcome nobody could find out in time. */
  unsettled: Operation[];
}

/** Mean pause between the operations of one client. */
export const PAUSE_MS = 25;
const RETRY_PAUSE_MAX_MS = 150;

export const pause = ({ random, winding }: Client, meanMs = PAUSE_MS) =>
  delay(random() * 2 * meanMs, undefined, { signal: winding }).catch(() => {});
export const retryPause = ({ random, over }: Client) =>
  delay(random() * RETRY_PAUSE_MAX_MS, undefined, { signal: over }).catch(() => {});

type Make = (kind: Operation['kind'], legs: readonly Leg[], more?: Partial<Operation>) => Operation;

/** Makes operations with a name, and so a key, of their own. */
export function operations({ name, actor }: Client): Make {
  let made = 0;
  return (kind, legs, more = {}) => {
    made += 1;
    const id = `${name}/${made}`;
    return { id, kind, legs: legs as Operation['legs'], key: id, actor, ...more };
  };
}

/** Makes updates: some take what is there, and some are for one version of the account alone. */
export function updates(client: Client, make = operations(client)) {
  const { random, history } = client;
  return (accountId = pickAccount(random), amount?: number): Operation => {
    const picked = amount ?? pickAmount(random, accountId);
    const legs = [{ accountId, amount: picked }];
    const draw = amount === undefined ? random() : 1;
    if (draw < 0.04 && picked < 0) return make('update', [{ accountId, amount: null }], { amount: picked });
    const seen = draw > 0.95 && draw < 1 ? history.readings.slice(-RECENT) : [];
    const state = seen.findLast((reading) => reading.accountId === accountId)?.state;
    return make('update', legs, state ? { expectedVersion: state.version } : {});
  };
}

/** Readings among which one of the account is looked for: an old one hardly ever names its version. */
const RECENT = 50;

/** What the other actor may mean by the same key on the same account: an operation of its own. */
export function twinOf({ random }: Client, operation: Operation): Operation {
  const actor = ACTORS.find((one) => one !== operation.actor) as Actor;
  const twin = { ...operation, id: `${operation.id}/twin`, actor };
  const [{ accountId }] = operation.legs;
  if (operation.kind !== 'update' || operation.amount !== undefined || random.chance(0.5)) return twin;
  return { ...twin, legs: [{ accountId, amount: pickAmount(random, accountId) }] };
}

/** Nothing is left to find out. Any other refusal settles nothing: the next attempt may fare better. */
export function isSettled(result: Result): boolean {
  return result.kind === 'applied' || result.kind === 'declined';
}

/** Nobody waits for what ends these. For an account that is not open yet, they do. */
const ENDS = new Set<string>([
  ...['account_closed', 'account_frozen', 'already_reversed', 'asset_mismatch', 'change_not_found', 'hold_closed'],
  ...['hold_exists', 'hold_expired', 'hold_not_found', 'idempotency_key_reused', 'not_reversible', ...DECLINES],
]);

export function isOver(result: Result): boolean {
  return isSettled(result) || (result.kind === 'refused' && ENDS.has(result.code));
}

/** Some give up early, so that their repeat meets their first attempt in the service. */
export const timeoutOf = (random: Random) => (random.chance(0.1) ? random.between(5, 300) : 8000);
export const formOf = (random: Random) => random.between(0, 9);

export async function settle(client: Client, operation: Operation): Promise<Attempt | undefined> {
  const { random, targets, over } = client;
  while (!over.aborted) {
    const options = { timeoutMs: timeoutOf(random), form: formOf(random) };
    const made = await attempt(client, random.pick(targets), operation, options);
    if (isOver(made.result)) return made;
    await retryPause(client);
  }
  return undefined;
}

export async function settleAll(client: Client, wanted: readonly Operation[]): Promise<void> {
  const settle1 = async (operation: Operation) => {
    if (!(await settle(client, operation))) client.unsettled.push(operation);
  };
  await Promise.all(wanted.map(settle1));
}
