// The independent subscriber: it saw every change, nothing else, and the consumer's rule of docs/events.md (drop what is
// not above the last one, hold what leaves a gap) makes versions 0..n of it. Without faults the order is right at once.

import { eventIdOf } from '../answers.ts';
import { wasWiped } from '../faults/fault.ts';
import type { Entry } from '../final-state.ts';
import type { SeenEvent } from '../subscriber.ts';
import { metadataIn } from './asked-for.ts';
import type { Cases, CheckInput, Violation, Window } from './evidence.ts';

export function checkEvents(input: CheckInput, cases: Cases): Violation[] {
  const { final, subscriber } = input;
  const violations: Violation[] = subscriber.broken.map((what) => ({ check: 'events', what }));
  for (const { event, atMs } of subscriber.events) {
    const { accountId, version } = event.data;
    const entry = final.ledger.get(accountId)?.[version];
    const seen = entryIn(event);
    const isIdRight = event.id === eventIdOf(accountId, version, event.data.epoch);
    if (entry && isIdRight && isSame(entry, seen)) continue;
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

function entryIn({ type, time, data }: SeenEvent['event']): Entry {
  const { limits, metadata, hold, previousEpoch = null, reference = null, actor = null, ...rest } = data;
  const { transferId = null, reverses = null, ...always } = rest;
  const { overdraftLimit = null, maxBalance = null, status = null } = limits ?? {};
  return {
    ...{ ...always, previousEpoch, type, reference, actor, transferId, reverses, createdAt: time },
    metadata: metadata ? metadataIn(metadata) : null,
    ...{ holdId: hold?.id ?? null, holdStatus: hold?.status ?? null, holdRemaining: hold?.remaining ?? null },
    ...{ holdExpiresAt: hold?.expiresAt ?? null, overdraftLimit, maxBalance, status },
  };
}

function isSame(one: Entry, other: Entry): boolean {
  const members = Object.keys(one) as (keyof Entry)[];
  return members.length === Object.keys(other).length && members.every((member) => one[member] === other[member]);
}

/** Changes whose event the subscriber has not seen, but for what a wipe took away. */
function missing({ final, subscriber, evidence }: CheckInput): Entry[] {
  const seen = new Set(subscriber.events.map(({ event }) => event.id));
  return [...final.ledger.values()].flatMap((entries) =>
    entries.filter(
      ({ accountId, version, epoch }) =>
        !seen.has(eventIdOf(accountId, version, epoch)) && !wasWiped(evidence, accountId, version),
    ),
  );
}

function asLost({ accountId, version }: Entry): Violation {
  return { check: 'never lost', accountId, what: `the subscriber never saw the event of version ${version}` };
}

/** Versions where no wipe took events away, which nobody can put back; cuts and forks always. */
function checkRule({ final, subscriber, evidence }: CheckInput): Violation[] {
  interface Followed {
    version: number;
    epoch: number | undefined;
    balance: number;
    held: number;
    early: Map<number, SeenEvent['event']['data']>;
  }
  const violations: Violation[] = [];
  const accounts = new Map<string, Followed>();
  for (const { event, atMs } of subscriber.events) {
    const { accountId, version, epoch } = event.data;
    const report = (what: string) => violations.push({ check: 'events', accountId, atMs, what });
    const account = accounts.get(accountId) ?? { version: -1, epoch: undefined, balance: 0, held: 0, early: new Map() };
    accounts.set(accountId, account);
    if (version <= account.version) {
      if (epoch > (account.epoch ?? 0)) report(`version ${version} of epoch ${epoch} cuts a history that nobody cut`);
      continue;
    }
    account.early.set(version, event.data);
    for (let next = account.early.get(account.version + 1); next; next = account.early.get(account.version + 1)) {
      account.early.delete(next.version);
      if (next.previousEpoch !== account.epoch)
        report(`version ${next.version} follows the epoch ${next.previousEpoch}, and it was ${account.epoch}`);
      if (next.balance - next.amount !== account.balance || next.held - next.heldChange !== account.held)
        report(`version ${next.version} does not follow the balance of the one before`);
      const { balance, held } = next;
      Object.assign(account, { version: next.version, epoch: next.epoch, balance, held });
    }
  }
  if (evidence.wipes.length > 0) return violations;
  const behind = [...final.accounts].flatMap(([accountId, { version }]) => {
    const followed = accounts.get(accountId)?.version ?? -1;
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
  return [...violations, ...behind];
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
      const before = latest.get(accountId) ?? -1;
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
