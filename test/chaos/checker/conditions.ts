// Updates with a condition: one for a version of its account follows that version or does not take effect, and one that takes
// what is there takes all that was asked for, or all that was available.
import type { Entry } from '../final-state.ts';
import type { Operation } from '../history.ts';
import type { Cases, CheckInput, StateAt, Violation } from './evidence.ts';
import { statesOf } from './evidence.ts';

export function checkConditions({ final }: CheckInput, { byId }: Cases): Violation[] {
  const stateAt = statesOf(final);
  const violations: Violation[] = [];
  for (const { operation, entries, remembered, startMs } of byId.values()) {
    const { id, kind, expectedVersion, legs } = operation;
    const { accountId } = legs[0];
    if (kind !== 'update') continue;
    const report = (what: string) =>
      violations.push({ check: 'conditions', accountId, atMs: startMs, what: `${id}: ${what}` });
    for (const entry of entries) {
      const what = wrongIn(operation, entry, stateAt);
      if (what) report(`version ${entry.version} ${what}`);
    }
    for (const { result } of remembered) {
      if (result.kind !== 'declined' || result.code !== 'version_mismatch') continue;
      if (expectedVersion === undefined || result.version === expectedVersion)
        report(`was declined at version ${result.version}, and was for ${expectedVersion}`);
    }
  }
  return violations;
}

function wrongIn({ expectedVersion, amount }: Operation, entry: Entry, stateAt: StateAt): string | undefined {
  const { accountId, version } = entry;
  if (expectedVersion !== undefined && version !== expectedVersion + 1) return `was for version ${expectedVersion}`;
  const before = amount === undefined ? undefined : stateAt(accountId, version - 1);
  if (!before || amount === undefined) return undefined;
  const available = before.balance + before.overdraftLimit - before.held;
  const right = Math.min(-amount, available);
  return -entry.amount === right ? undefined : `took ${-entry.amount} of ${-amount}, and ${available} was available`;
}
