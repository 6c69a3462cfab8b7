// At the end many a key is sent once more: its first answer has to come again, whatever died in between. What was given up
// without an answer is settled by it, half of it: the other half stays unknown for good.
import { ACTORS, type Tokens } from './accounts.ts';
import { type Api, attempt, attemptBulk } from './attempts.ts';
import type { History, Operation } from './history.ts';
import { createHttpClient } from './http.ts';

/** Of all kinds that a bulk request takes together, and of all others. */
const OPERATIONS_MAX = 5000;
const SINGLES_MAX = 2000;
const AT_ONCE = 250;
const SINGLES_AT_ONCE = 8;
const TIMEOUT_MS = 30_000;

export async function replayAll(history: History, targets: readonly Api[], tokens: Tokens): Promise<void> {
  const repeatable = new Map<string, Operation>();
  for (const { operation, isReuse } of history.attempts)
    if ((operation.key !== null || operation.kind === 'hold') && !isReuse) repeatable.set(operation.id, operation);
  const all = [...repeatable.values()];
  const http = createHttpClient();
  const sender = { history, http, tokens };
  const targetOf = (number: number) => targets[number % targets.length] as Api;
  const options = { timeoutMs: TIMEOUT_MS, form: 1 };
  try {
    for (const kind of ['update', 'transfer'] as const) {
      const ofKind = some(
        all.filter((operation) => operation.kind === kind),
        OPERATIONS_MAX,
      );
      for (const actor of ACTORS) {
        const own = ofKind.filter((operation) => operation.actor === actor);
        for (let first = 0; first < own.length; first += AT_ONCE)
          await attemptBulk(sender, targetOf(first / AT_ONCE), own.slice(first, first + AT_ONCE), options);
      }
    }
    const singles = some(
      all.filter(({ kind }) => kind !== 'update' && kind !== 'transfer'),
      SINGLES_MAX,
    );
    for (let first = 0; first < singles.length; first += SINGLES_AT_ONCE) {
      const together = singles.slice(first, first + SINGLES_AT_ONCE);
      await Promise.all(together.map((operation, place) => attempt(sender, targetOf(place), operation, options)));
    }
  } finally {
    http.close();
  }
}

/** Every second one, or fewer. */
function some(operations: readonly Operation[], countMax: number): Operation[] {
  const every = Math.max(2, Math.ceil(operations.length / countMax));
  return operations.filter((_, index) => index % every === 0);
}
