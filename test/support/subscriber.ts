// A subscriber with the published client, and a ledger for it that no service wrote.
import {
  type BalanceEvent,
  type Delivery,
  type Gap,
  type Handled,
  type Problem,
  type Rewind,
  type SubscribeOptions,
  subscribe,
} from '../../src/client/events.ts';
import type { Change } from '../../src/shared/change.ts';
import { type Database, makeChange } from './harness.ts';
import { insertEntries } from './ledger-rows.ts';

/** Of an account that is credited with 2, 2 and -1 by turns after its opening. */
export function change(accountId: string, version: number) {
  const amount = version === 0 ? 0 : version % 3 === 0 ? -1 : 2;
  return makeChange({ accountId, version, amount, balance: version + (version % 3) });
}

/** Changes as if they had been recorded by the worker, all of the account from its opening. */
export async function record({ pool }: Database, changes: readonly Change[]): Promise<void> {
  const { accountId, version, balance, epoch } = changes.at(-1) as Change;
  await pool.query(
    `INSERT INTO account (account_id, balance, version, epoch, created_at, updated_at) VALUES ($1, $2, $3, $4, now(), now())`,
    [accountId, balance, version, epoch],
  );
  await insertEntries(pool, changes);
}

/** A subscriber whose database is a map, and what it saw. */
export function startSubscriber(
  options: Pick<SubscribeOptions, 'url' | 'namespace' | 'queue' | 'client'> & Partial<SubscribeOptions>,
  stored = new Map<string, Handled>(),
) {
  const handled: (Delivery & { event: BalanceEvent })[] = [];
  const gaps: Gap[] = [];
  const rewinds: Rewind[] = [];
  const problems: Problem[] = [];
  const subscription = subscribe({
    lastHandled: (accountId) => stored.get(accountId),
    onGap: (gap) => {
      gaps.push(gap);
      return 'wait';
    },
    onRewind: (rewind) => {
      rewinds.push(rewind);
      stored.set(rewind.accountId, rewind.shared as Handled);
    },
    onProblem: (problem) => problems.push(problem),
    ...options,
    async handle(event, delivery) {
      await options.handle?.(event, delivery);
      handled.push({ event, ...delivery });
      stored.set(event.data.accountId, delivery.handled);
    },
  });
  const versionsOf = (accountId: string) =>
    handled.filter(({ event }) => event.data.accountId === accountId).map(({ event }) => event.data.version);
  return { subscription, handled, gaps, rewinds, problems, stored, versionsOf };
}
