// Each account is linearizable: an answer that had arrived before another request began has the lower version, a reading shows
// the account as one of its versions within its window was, and updates of one bulk request keep their order.
import type { AccountState } from '../history.ts';
import { changesOf } from './changes.ts';
import type { Cases, CheckInput, Remembered, StateAt, Violation } from './evidence.ts';
import { statesOf } from './evidence.ts';

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
    const { id: name } = operation;
    for (const { accountId, version } of entries) add(accountId, { startMs, endMs, version, writes: true, name });
    const declined = remembered.find(({ result }) => result.kind === 'declined')?.result;
    if (entries.length > 0 || declined?.kind !== 'declined') continue;
    add(declined.accountId, { startMs, endMs, version: declined.version, writes: false, name });
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
  interface First {
    attempt: Remembered;
    version: number;
  }
  const firsts = new Map<string, First[]>();
  for (const { operation, remembered } of cases.byId.values()) {
    if (operation.kind !== 'update') continue; // of transfers in one request nobody promised an order
    for (const attempt of remembered) {
      const { bulk, result } = attempt;
      if (!bulk || result.replayed || result.kind !== 'applied') continue;
      for (const { accountId, version } of result.legs) {
        const group = `${bulk.request} ${accountId}`;
        firsts.set(group, [...(firsts.get(group) ?? []), { attempt, version }]);
      }
    }
  }
  const placeOf = ({ attempt }: First) => attempt.bulk?.place ?? 0;
  const violations: Violation[] = [];
  for (const [name, group] of firsts) {
    const accountId = name.slice(name.indexOf(' ') + 1);
    group.sort((a, b) => placeOf(a) - placeOf(b));
    group.forEach(({ attempt, version }, index) => {
      const before = group[index - 1];
      if (!before || version > before.version) return;
      const what = `${attempt.operation.id} stood behind ${before.attempt.operation.id} in one bulk request and took effect before it`;
      violations.push({ check: 'order', accountId, atMs: attempt.startMs, what });
    });
  }
  return violations;
}
