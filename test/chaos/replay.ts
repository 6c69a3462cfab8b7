// At the end many a key is sent once more: its first answer has to come again, whatever died in between. What was given up
// without an answer is settled by it, half of it: the other half stays unknown for good.
import { ACTORS, type Tokens } from './accounts.ts';
import type { History, Operation } from './history.ts';
import { createHttpClient } from './http.ts';
import { attemptBulk } from './updates.ts';

const OPERATIONS_MAX = 5000;
const AT_ONCE = 250;
const TIMEOUT_MS = 30_000;

export async function replayAll(
  history: History,
  targets: readonly { name: string; port: number }[],
  tokens: Tokens,
): Promise<void> {
  const keyed = new Map<string, Operation>();
  for (const { operation, isReuse } of history.attempts)
    if (operation.key !== null && !isReuse) keyed.set(operation.id, operation);
  const every = Math.max(2, Math.ceil(keyed.size / OPERATIONS_MAX));
  const chosen = [...keyed.values()].filter((_, index) => index % every === 0);
  const http = createHttpClient();
  try {
    for (const actor of ACTORS) {
      const own = chosen.filter((operation) => operation.actor === actor);
      for (let first = 0; first < own.length; first += AT_ONCE) {
        const target = targets[(first / AT_ONCE) % targets.length] as (typeof targets)[number];
        await attemptBulk({ history, http, tokens }, target, own.slice(first, first + AT_ONCE), TIMEOUT_MS);
      }
    }
  } finally {
    http.close();
  }
}
