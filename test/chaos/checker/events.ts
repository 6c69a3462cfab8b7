// The independent subscriber: it saw every change, nothing else, and the consumer's rule of docs/events.md (drop what is
// not above the last one, hold what leaves a gap) makes versions 1..n of it. Without faults the order is right at once.
import { wasWiped } from '../faults/fault.ts';
import type { Entry } from '../final-state.ts';
import type { Cases, CheckInput, Violation, Window } from './evidence.ts';

export function checkEvents(input: CheckInput, cases: Cases): Violation[] {
  const { final, subscriber } = input;
  const violations: Violation[] = subscriber.broken.map((what) => ({ check: 'events', what }));
  for (const { event, atMs } of subscriber.events) {
    const { accountId, version } = event.data;
    const entry = final.ledger.get(accountId)?.[version - 1];
    const seen: Entry = { ...event.data, reference: event.data.reference ?? null, createdAt: event.time };
    if (entry && SAME.every((member) => entry[member] === seen[member])) continue;
    const what = `the event ${JSON.stringify(event)} does not fit the entry ${JSON.stringify(entry)}`;
    violations.push({ check: 'events', accountId, atMs, what });
  }
  return [
    ...violations,
    ...missing(input).map(asLost),
    ...checkRule(input),
    ...checkCalmOrder(input, cases),
    ...checkDeadLetters(input),
  ];
}

const SAME = ['accountId', 'version', 'amount', 'balance', 'reference', 'createdAt'] as const;

/** Changes whose event the subscriber has not seen, but for what a wipe took away. */
function missing({ final, subscriber, evidence }: CheckInput): Entry[] {
  const seen = new Set(subscriber.events.map(({ event }) => event.id));
  return [...final.ledger.values()].flatMap((entries) =>
    entries.filter(
      ({ accountId, version }) => !seen.has(`${accountId}:${version}`) && !wasWiped(evidence, accountId, version),
    ),
  );
}

function asLost({ accountId, version }: Entry): Violation {
  return { check: 'never lost', accountId, what: `the subscriber never saw the event of version ${version}` };
}

/** Only where no wipe took events away, which nobody can put back. */
function checkRule({ final, subscriber, evidence }: CheckInput): Violation[] {
  if (evidence.wipes.length > 0) return [];
  const accounts = new Map<string, { version: number; early: Set<number> }>();
  for (const { event } of subscriber.events) {
    const { accountId, version } = event.data;
    const account = accounts.get(accountId) ?? { version: 0, early: new Set() };
    accounts.set(accountId, account);
    if (version <= account.version) continue;
    account.early.add(version);
    while (account.early.delete(account.version + 1)) account.version += 1;
  }
  return [...final.accounts].flatMap(([accountId, { version }]) => {
    const followed = accounts.get(accountId)?.version ?? 0;
    return followed === version
      ? []
      : [
          {
            check: 'events',
            accountId,
            what: `by the consumer's rule it is at version ${followed}, really at ${version}`,
          },
        ];
  });
}

/** Of what was asked for and seen within one time without faults, no later version may come first. */
function checkCalmOrder({ subscriber, calm }: CheckInput, cases: Cases): Violation[] {
  return calm.flatMap((window) => {
    const latest = new Map<string, number>();
    const seen = new Set<string>();
    return subscriber.events.flatMap(({ event, atMs, redelivered }) => {
      const { accountId, version, reference } = event.data;
      if (seen.has(event.id) || redelivered || !isWithin(window, cases.byId.get(reference ?? '')?.startMs, atMs))
        return [];
      seen.add(event.id);
      const before = latest.get(accountId) ?? 0;
      latest.set(accountId, Math.max(before, version));
      if (version > before) return [];
      const what = `without any fault, the event of version ${version} came after that of ${before}`;
      return [{ check: 'events', accountId, atMs, what }];
    });
  });
}

function isWithin(window: Window, startMs: number | undefined, endMs: number): boolean {
  return startMs !== undefined && startMs >= window.startMs && endMs <= window.endMs;
}

/** Nothing true is ever refused; and every forgery is, as long as no fault takes the queue away that it came to. */
function checkDeadLetters({ subscriber, evidence, calm }: CheckInput): Violation[] {
  const genuine = subscriber.dead.filter(({ isForged }) => !isForged);
  const dead = new Set(subscriber.dead.map(({ messageId }) => messageId));
  const passed = evidence.forged.filter(
    ({ atMs, messageId }) =>
      calm.some(({ startMs, endMs }) => atMs >= startMs && atMs <= endMs) && !dead.has(messageId),
  );
  return [
    ...genuine.map(({ messageId }) => ({ check: 'events', what: `the genuine event ${messageId} was dead-lettered` })),
    ...passed.map(({ messageId }) => ({
      check: 'forgeries',
      what: `a message that nobody should believe was not dead-lettered: ${messageId}`,
    })),
  ];
}
