// Whether the service reports what its database lost: each API process names the accounts whose
// answers are gone, and a subscriber can tell by the epoch. If nothing was lost, each says so, and
// nobody claims a loss.
import { readFileSync } from 'node:fs';
import type { CheckInput, Violation } from '../chaos/checker/evidence.ts';
import type { Member } from '../chaos/fleet.ts';
import { type LostChange, lostIn } from './loss.ts';

interface Named {
  accountId: string;
  firstVersion: number;
  lastVersion: number;
  epoch: number;
}

interface Said {
  named: Named[];
  /** How often it found that everything was there. */
  whole: number;
}

const LOST = 'changes that were answered are not in the database';
const WHOLE = 'the epoch rose; every change that was answered is in the database';

/** @param mayLose whether the database may have lost an answer that its client never got. */
export function checkReported(input: CheckInput, apis: readonly Member[], mayLose: boolean): Violation[] {
  const report = (what: string, accountId?: string) => ({ check: 'reported', what, ...(accountId && { accountId }) });
  return [
    ...apis.flatMap(({ name, logFile }) => {
      const said = saidIn(readFileSync(logFile, 'utf8'));
      const lost = lastLost(input, name);
      const unsaid = [...lost.values()].filter((change) => !said.named.some((named) => covers(named, change)));
      const untrue = said.named.filter(
        ({ accountId }) => !lost.has(accountId) && !(mayLose && hasForgotten(input, accountId)),
      );
      const isQuiet = input.evidence.stops.length > 0 && lost.size === 0 && said.whole + said.named.length === 0;
      return [
        ...unsaid.map(({ accountId, version, epoch }) =>
          report(`${name} did not report that version ${version} of epoch ${epoch} is lost`, accountId),
        ),
        ...untrue.map((named) => report(`${name} reported as lost ${JSON.stringify(named)}`, named.accountId)),
        ...(isQuiet ? [report(`${name} did not compare its answers with the new primary`)] : []),
      ];
    }),
    ...unseen(input).map(({ accountId, version }) =>
      report(`after version ${version} was lost, no event showed its subscriber the cut`, accountId),
    ),
  ];
}

function saidIn(log: string): Said {
  const lines = log.split('\n').filter((line) => line.includes(LOST) || line.includes(WHOLE));
  const parsed = lines.map((line) => JSON.parse(line) as { msg: string; lost?: Named[] });
  return {
    named: parsed.flatMap(({ lost = [] }) => lost),
    whole: parsed.filter(({ msg }) => msg === WHOLE).length,
  };
}

/** The last of the lost changes of each account that this process answered. */
function lastLost({ history, final }: CheckInput, api: string): Map<string, LostChange> {
  const last = new Map<string, LostChange>();
  for (const attempt of history.attempts) {
    if (attempt.api !== api || (attempt.result.kind === 'applied' && attempt.result.replayed)) continue;
    for (const change of lostIn(final, attempt))
      if (change.version > (last.get(change.accountId)?.version ?? -1)) last.set(change.accountId, change);
  }
  return last;
}

function covers({ accountId, firstVersion, lastVersion, epoch }: Named, lost: LostChange): boolean {
  return (
    accountId === lost.accountId && epoch === lost.epoch && firstVersion <= lost.version && lastVersion >= lost.version
  );
}

/**
 * An answer may be lost without its client having got it, or be of a hold, which names no version.
 */
function hasForgotten({ history, subscriber, final }: CheckInput, accountId: string): boolean {
  const isGone = ({ version, epoch }: { version: number; epoch: number }) =>
    final.ledger.get(accountId)?.[version]?.epoch !== epoch;
  return (
    subscriber.events.some(({ event: { data } }) => data.accountId === accountId && isGone(data)) ||
    history.attempts.some(
      ({ operation, result }) =>
        operation.legs.some((leg) => leg.accountId === accountId) &&
        (result.kind === 'unknown' || operation.kind === 'hold'),
    )
  );
}

/**
 * Lost changes whose events arrived, of accounts that changed since, without a later event that
 * shows the cut.
 */
function unseen({ subscriber, final }: CheckInput): LostChange[] {
  const latest = new Map<string, number>();
  for (const { event } of subscriber.events)
    latest.set(event.data.accountId, Math.max(event.data.epoch, latest.get(event.data.accountId) ?? 0));
  return subscriber.events.flatMap(({ event: { data } }) => {
    const entries = final.ledger.get(data.accountId) ?? [];
    const isGone = entries[data.version]?.epoch !== data.epoch;
    const changedSince = entries.some(({ epoch }) => epoch > data.epoch);
    return isGone && changedSince && (latest.get(data.accountId) ?? 0) <= data.epoch ? [data] : [];
  });
}
