// Guarantee 7, as far as one server can break it: what was asked for after a start of the database carries a higher epoch than
// what was answered before its stop, and no epoch is raised without a start.
import { changesOf } from './changes.ts';
import type { Cases, CheckInput, Violation, Window } from './evidence.ts';

export function checkEpochs(input: CheckInput, cases: Cases): Violation[] {
  const { final, evidence } = input;
  const violations: Violation[] = [];
  const { stops } = evidence;
  if (final.epochs.length > stops.length + 1) {
    const what = `the database was started ${stops.length + 1} times, and there are ${final.epochs.length} epochs`;
    violations.push({ check: 'epochs', what });
  }
  const effects = effectsOf(input, cases);
  for (const { startMs, endMs } of stops) {
    const before = effects.filter((effect) => effect.endMs < startMs);
    const after = effects.filter((effect) => effect.startMs > endMs);
    const highest = before.reduce((max, { epoch }) => Math.max(max, epoch), 0);
    const stale = after.find(({ epoch }) => epoch <= highest);
    if (!stale) continue;
    const what = `version ${stale.version} has epoch ${stale.epoch}, and there was ${highest} before the database started`;
    violations.push({ check: 'epochs', accountId: stale.accountId, atMs: stale.startMs, what });
  }
  return violations;
}

interface Effect extends Window {
  accountId: string;
  version: number;
  epoch: number;
}

function effectsOf(input: CheckInput, cases: Cases): Effect[] {
  const effects: Effect[] = [];
  for (const { entries, startMs, endMs } of cases.byId.values()) {
    for (const { accountId, version, epoch } of entries) effects.push({ accountId, version, epoch, startMs, endMs });
  }
  for (const [accountId, { startMs, endMs }] of cases.births) {
    const epoch = input.final.ledger.get(accountId)?.[0]?.epoch;
    if (epoch !== undefined) effects.push({ accountId, version: 0, epoch, startMs, endMs });
  }
  for (const { accountId, entries, startMs, endMs } of changesOf(input)) {
    const [entry] = entries;
    if (entry) effects.push({ accountId, version: entry.version, epoch: entry.epoch, startMs, endMs });
  }
  return effects;
}
