// What is taken back is never more than what was: each reversal names a change that moved money and is none itself, goes the
// opposite way in the same accounts, and all of them together do not exceed it.
import { eventIdOf } from '../answers.ts';
import type { Entry, FinalState } from '../final-state.ts';
import type { Cases, CheckInput, Violation } from './evidence.ts';

interface Original {
  legs: Entry[];
  /** In order of version of the first leg's account: by account, what they moved. */
  reversals: Entry[][];
}

export function checkReversals({ final }: CheckInput, cases: Cases): Violation[] {
  const violations: Violation[] = [];
  const report = (accountId: string, what: string) => violations.push({ check: 'reversals', accountId, what });
  const originals = originalsOf(final);
  const noted = new Map(final.reversals.map((row) => [eventIdOf(row.accountId, row.version, row.epoch), row]));
  for (const [id, { legs, reversals }] of originals) {
    const [first] = legs;
    if (!first) {
      report(reversals[0]?.[0]?.accountId ?? '', `${id} is reversed, and is no change that can be`);
      continue;
    }
    const whole = movedBy(legs);
    let reversed = 0;
    for (const reversal of reversals) {
      const moved = movedBy(reversal);
      reversed += moved;
      const name = reversal[0]?.reference;
      const isOpposite =
        reversal.length === legs.length &&
        reversal.every((entry) => {
          const leg = legs.find(({ accountId }) => accountId === entry.accountId);
          if (!leg || leg.version >= entry.version || Math.sign(leg.amount) !== -Math.sign(entry.amount)) return false;
          return legs.length <= 2 ? Math.abs(entry.amount) === moved : entry.amount === -leg.amount;
        });
      if (!isOpposite) report(first.accountId, `${name} is not the opposite of ${id}: ${JSON.stringify(reversal)}`);
      if (reversed > whole) report(first.accountId, `${id} moved ${whole}, and with ${name} ${reversed} came back`);
      const asked = cases.byId.get(name ?? '')?.operation;
      if (asked && asked.amount === undefined && reversed < whole)
        report(first.accountId, `${name} was to take back all that was left of ${id}, and left ${whole - reversed}`);
    }
    const row = noted.get(id);
    if (row?.original !== whole || row.reversed !== reversed)
      report(
        first.accountId,
        `of ${id} ${reversed} of ${whole} came back, and what is noted is ${JSON.stringify(row)}`,
      );
  }
  return [...violations, ...checkRefusals(originals, cases), ...checkFound(final, cases)];
}

const movedBy = (legs: readonly Entry[]) =>
  legs.length === 1 ? Math.abs(legs[0]?.amount ?? 0) : legs.reduce((sum, { amount }) => sum + Math.max(0, amount), 0);

function originalsOf({ ledger }: FinalState): Map<string, Original> {
  const legs = new Map<string, Entry[]>();
  const reversals = new Map<string, Map<string, Entry[]>>();
  for (const entries of ledger.values()) {
    for (const entry of entries) {
      const { accountId, version, epoch, amount, transferId, reverses } = entry;
      const id = transferId ?? eventIdOf(accountId, version, epoch);
      if (reverses === null) {
        if (amount !== 0) legs.set(id, [...(legs.get(id) ?? []), entry]);
        continue;
      }
      const ofOriginal = reversals.get(reverses) ?? new Map<string, Entry[]>();
      reversals.set(reverses, ofOriginal.set(id, [...(ofOriginal.get(id) ?? []), entry]));
    }
  }
  const originals = new Map<string, Original>();
  for (const [id, ofOriginal] of reversals) {
    const versionOf = (reversal: Entry[]) =>
      Math.min(...reversal.filter(inFirst(reversal)).map(({ version }) => version));
    const sorted = [...ofOriginal.values()].sort((one, other) => versionOf(one) - versionOf(other));
    originals.set(id, { legs: legs.get(id) ?? [], reversals: sorted });
  }
  return originals;
}

/** Reversals of one change are in the same accounts; the lowest of them orders all. */
function inFirst(reversal: readonly Entry[]): (entry: Entry) => boolean {
  const [first] = reversal.map(({ accountId }) => accountId).sort();
  return ({ accountId }) => accountId === first;
}

/** It is called reversed, or too little, only where so much came back until then; what came back never comes again. */
function checkRefusals(originals: ReadonlyMap<string, Original>, { byId }: Cases): Violation[] {
  const violations: Violation[] = [];
  for (const { operation, attempts } of byId.values()) {
    const { reverses, amount = 0, legs } = operation;
    if (reverses === undefined) continue;
    const original = originals.get(reverses);
    const whole = movedBy(original?.legs ?? []);
    const reversed = (original?.reversals ?? []).reduce((sum, reversal) => sum + movedBy(reversal), 0);
    for (const { result, startMs } of attempts) {
      const code = 'code' in result ? result.code : '';
      const isWrong =
        (code === 'already_reversed' && (!original || reversed < whole)) ||
        (code === 'reversal_exceeds' && amount + reversed <= whole && whole > 0);
      if (!isWrong) continue;
      const what = `${operation.id} was answered ${code}, and ${reversed} of ${whole} came back of ${reverses}`;
      violations.push({ check: 'reversals', accountId: legs[0].accountId, atMs: startMs, what });
    }
  }
  return violations;
}

/** Whatever was answered can be reversed at once, though the ledger may not have it yet. */
function checkFound({ ledger }: FinalState, { byId, births }: Cases): Violation[] {
  const violations: Violation[] = [];
  for (const { operation, attempts } of byId.values()) {
    const [accountId, version, epoch] = (operation.reverses ?? '').split(':');
    const entry = ledger.get(accountId ?? '')?.[Number(version)];
    if (!entry || entry.epoch !== Number.parseInt(epoch ?? '', 36)) continue;
    const asked = entry.version === 0 ? births.get(entry.accountId) : byId.get(entry.reference ?? '');
    for (const { result, startMs } of attempts) {
      if (result.kind !== 'refused' || result.code !== 'change_not_found' || startMs < (asked?.endMs ?? Infinity))
        continue;
      const what = `${operation.id}: ${operation.reverses} had been answered, and was not found`;
      violations.push({ check: 'reversals', accountId: entry.accountId, atMs: startMs, what });
    }
  }
  return violations;
}
