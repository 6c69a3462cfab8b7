// Clients that retry under a key until they know: with copies at once, beside the other actor, and long after. And those that
// do not: without a key, or without the patience to use it.
import { attempt } from '../attempts.ts';
import type { Attempt, Operation } from '../history.ts';
import { type Client, formOf, isSettled, pause, settle, settleAll, timeoutOf, twinOf } from './client.ts';

/** What a client keeps itself busy with. */
export interface Work {
  next(): Operation;
  /** Further operations that are to run at the same time. */
  beside?(operation: Operation): readonly Operation[];
  /** Called with what became of an operation. */
  after?(attempt: Attempt): Promise<void> | void;
}

/** Remembered by a client, to be sent again out of the blue. */
const SETTLED_MAX = 500;

export async function beCareful(client: Client, work: Work): Promise<void> {
  const { random, targets, winding, unsettled } = client;
  const settled: Operation[] = [];
  while (!winding.aborted) {
    const operation = work.next();
    const copies = random.chance(0.1) ? random.between(2, 3) : 1;
    const beside = settleAll(client, work.beside?.(operation) ?? []);
    // At the same time, which can bring both into one batch, or after it. Nobody else can place the same hold.
    const twin = operation.kind !== 'hold' && random.chance(0.06) ? twinOf(client, operation) : undefined;
    const isTogether = random.chance(0.5);
    const together = twin && isTogether ? settleAll(client, [twin]) : undefined;
    const all = await Promise.all(Array.from({ length: copies }, () => settle(client, operation)));
    await Promise.all([together, beside]);
    if (twin && !isTogether) await settleAll(client, [twin]);
    if (all.every((one) => one === undefined)) unsettled.push(operation);
    const known = all.find((one) => one && isSettled(one.result));
    if (known) {
      settled.push(operation);
      if (settled.length > SETTLED_MAX) settled.splice(random.between(0, SETTLED_MAX), 1);
      await work.after?.(known);
    }
    if (settled.length > 0 && random.chance(0.15))
      await attempt(client, random.pick(targets), random.pick(settled), { form: formOf(random) });
    if (settled.length > 0 && random.chance(0.03)) await misuse(client, random.pick(settled));
    await pause(client);
  }
}

let misuses = 0;

/** Another request under a key that was used, or another hold with an id that was: by its reference alone, or by its amount. */
async function misuse(client: Client, settled: Operation): Promise<void> {
  const { random, targets } = client;
  misuses += 1;
  const other = { ...settled, id: `${settled.id}/misuse-${misuses}` };
  const [{ accountId, amount }] = settled.legs;
  if (settled.kind === 'update' && amount !== null) other.legs = [{ accountId, amount: amount + 1 || 1 }];
  if (settled.kind === 'hold') {
    if (random.chance(0.5)) other.amount = (settled.amount ?? 0) + 1;
    else other.actor = twinOf(client, settled).actor;
  }
  await attempt(client, random.pick(targets), other, { isReuse: true });
}

/** Without a key, or with one and without the patience to use it. */
export async function sendOnce(client: Client, work: Work, hasKey: boolean): Promise<void> {
  const { random, targets, winding } = client;
  while (!winding.aborted) {
    const operation = work.next();
    const sent = hasKey ? operation : { ...operation, key: null };
    const made = await attempt(client, random.pick(targets), sent, { timeoutMs: timeoutOf(random) });
    if (isSettled(made.result)) await work.after?.(made);
    await pause(client);
  }
}
