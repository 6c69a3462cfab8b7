// Clients that send many updates or transfers in one request, with keys and repeated, or without and not.
import { attemptBulk } from '../attempts.ts';
import type { Operation } from '../history.ts';
import { type Client, formOf, isOver, PAUSE_MS, pause, retryPause, timeoutOf } from './client.ts';

export async function sendBulk(client: Client, next: () => Operation, sizeMax: number): Promise<void> {
  const { random, winding } = client;
  while (!winding.aborted) {
    const hasKeys = random.chance(0.7);
    const wanted = Array.from({ length: random.between(1, sizeMax) }, () => ({
      ...next(),
      ...(hasKeys ? {} : { key: null }),
    }));
    if (hasKeys && random.chance(0.2)) wanted.push(wanted[0] as Operation); // one key twice in a request
    if (hasKeys) await settleBulk(client, wanted);
    else await attemptBulk(client, random.pick(client.targets), wanted, { timeoutMs: timeoutOf(random) });
    await pause(client, 4 * PAUSE_MS);
  }
}

export async function settleBulk(client: Client, wanted: readonly Operation[]): Promise<void> {
  const { random, targets, over, unsettled } = client;
  for (let left = wanted; left.length > 0; ) {
    const options = { timeoutMs: timeoutOf(random), form: formOf(random) };
    const attempts = await attemptBulk(client, random.pick(targets), left, options);
    left = attempts.filter(({ result }) => !isOver(result)).map(({ operation }) => operation);
    if (left.length === 0) return;
    if (over.aborted) {
      unsettled.push(...left);
      return;
    }
    await retryPause(client);
  }
}
