// Each account is linearizable: an answer that had arrived before another request began has the lower version, a decline
// and a reading show the account as one of its versions within their window was, and updates of one bulk request keep
// their order.
import { AMOUNT_MAX } from '../accounts.ts';
import type { AccountState } from '../history.ts';
import { changesOf } from './changes.ts';
import type { Cases, CheckInput, Remembered, StateAt, Violation } from './evidence.ts';
import { policiesOf, statesOf } from './evidence.ts';

interface Point {
  startMs: number;
  endMs: number;
  version: number;
  writes: boolean;
  name: string;
}

export function checkOrder(input: CheckInput, cases: Cases): Violation[] {
  const points = new Map<string, Point[]>();
  const add = (accountId: string, point: Point) => {
    const ofAccount = points.get(accountId);
    if (ofAccount) ofAccount.push(point);
    else points.set(accountId, [point]);
  };
  for (const { operation, remembered, entries, startMs, endMs } of cases.byId.values()) {
    const { accountId, id: name } = operation;
    const [entry] = entries;
    const declined = remembered.find(({ result }) => result.kind === 'declined');
    if (entry) add(accountId, { startMs, endMs, version: entry.version, writes: true, name });
    else if (declined) add(accountId, { startMs, endMs, version: declined.result.version, writes: false, name });
  }
  for (const [accountId, { startMs, endMs }] of cases.births) {
    if (input.final.ledger.has(accountId))
      add(accountId, { startMs, endMs, version: 0, writes: true, name: 'the opening' });
  }
  for (const { accountId, entries, startMs, endMs, name } of changesOf(input)) {
    // A late first attempt may bring it into force again: then the first time is the one that was answered.
    const [entry] = entries;
    if (entry) add(accountId, { startMs, endMs, version: entry.version, writes: true, name });
  }
  for (const { accountId, startMs, endMs, state } of input.history.readings) {
    add(accountId, { startMs, endMs, version: state.version, writes: false, name: 'a reading' });
  }
  const stateAt = statesOf(input.final);
  return [
    ...[...points].flatMap(([accountId, ofAccount]) => checkRealTime(accountId, ofAccount)),
    ...checkDeclines(input, cases, stateAt),
    ...checkReadings(input, stateAt),
    ...checkBulk(cases),
  ];
}

/** Goes through the starts in order of time, with the highest version that had been answered by then. */
function checkRealTime(accountId: string, points: Point[]): Violation[] {
  const violations: Violation[] = [];
  const byEnd = points.filter(({ endMs }) => endMs < Infinity).sort((a, b) => a.endMs - b.endMs);
  let ended = 0;
  let highest: Point | undefined;
  for (const point of points.sort((a, b) => a.startMs - b.startMs)) {
    for (; (byEnd[ended]?.endMs ?? Infinity) < point.startMs; ended += 1) {
      const one = byEnd[ended] as Point;
      if (!highest || one.version > highest.version) highest = one;
    }
    if (!highest || point.version > highest.version || (!point.writes && point.version === highest.version)) continue;
    const what = `${point.name} began after ${highest.name} had been answered with version ${highest.version}, and has version ${point.version}`;
    violations.push({ check: 'order', accountId, atMs: point.startMs, what });
  }
  return violations;
}

/** At the version that the decline names, the balance was as it says, and the limits did not allow the update. */
function checkDeclines({ history }: CheckInput, cases: Cases, stateAt: StateAt): Violation[] {
  const violations: Violation[] = [];
  const policies = policiesOf(history);
  for (const { operation, remembered, startMs, endMs } of cases.byId.values()) {
    const declined = remembered.find(({ result }) => result.kind === 'declined');
    if (!declined) continue;
    const { accountId, amount, id } = operation;
    const { balance, version } = declined.result;
    const report = (what: string) =>
      violations.push({ check: 'declines', accountId, atMs: startMs, what: `${id}: ${what}` });
    const real = stateAt(accountId, version);
    if (real?.balance !== balance)
      report(`was declined with balance ${balance} at version ${version}; it was ${real?.balance}`);
    if (!real) continue;
    const { limitMin, ceilingMin } = policies(accountId, { startMs, endMs });
    const after = balance + amount;
    switch (declined.result.kind === 'declined' && declined.result.code) {
      case 'balance_out_of_range':
        if (Math.abs(after) <= AMOUNT_MAX) report(`${balance} and ${amount} are not out of range`);
        break;
      case 'max_balance_exceeded':
        if (amount < 0 || after <= Math.max(ceilingMin, real.maxBalance ?? Infinity))
          report(`the balance ${balance} with ${amount} was not above ${real.maxBalance}`);
        break;
      default:
        if (amount > 0 || after >= -Math.min(limitMin, real.overdraftLimit))
          report(`the balance ${balance} covered ${amount}`);
    }
  }
  return violations;
}

function checkReadings({ history }: CheckInput, stateAt: StateAt): Violation[] {
  return history.readings.flatMap(({ accountId, startMs, state }) => {
    const real = stateAt(accountId, state.version);
    if (real && SHOWN.every((member) => real[member] === state[member])) return [];
    const what = `an answer showed ${JSON.stringify(state)}; it was ${JSON.stringify(real)}`;
    return [{ check: 'order', accountId, atMs: startMs, what }];
  });
}

const SHOWN = Object.keys({
  ...{ asset: '', balance: 0, held: 0, version: 0, overdraftLimit: 0, maxBalance: null, status: 'open' },
} satisfies AccountState) as (keyof AccountState)[];

function checkBulk(cases: Cases): Violation[] {
  const firsts = new Map<string, Remembered[]>();
  for (const { remembered, operation } of cases.byId.values()) {
    for (const attempt of remembered) {
      if (!attempt.bulk || attempt.result.replayed || attempt.result.kind !== 'applied') continue;
      const group = `${attempt.bulk.request} ${operation.accountId}`;
      firsts.set(group, [...(firsts.get(group) ?? []), attempt]);
    }
  }
  const violations: Violation[] = [];
  for (const group of firsts.values()) {
    group.sort((a, b) => (a.bulk?.place ?? 0) - (b.bulk?.place ?? 0));
    group.forEach(({ operation, result, startMs }, index) => {
      const before = group[index - 1];
      if (!before || result.version > before.result.version) return;
      const what = `${operation.id} stood behind ${before.operation.id} in one bulk request and took effect before it`;
      violations.push({ check: 'order', accountId: operation.accountId, atMs: startMs, what });
    });
  }
  return violations;
}
