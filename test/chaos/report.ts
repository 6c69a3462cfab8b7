// What a run says at its end: a table for people, JSON for programs, and for a failure the history around it in a file.
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Violation, Window } from './checker/evidence.ts';
import type { FinalState } from './final-state.ts';
import type { History } from './history.ts';
import { type Injection, strikesOf } from './nemesis.ts';
import type { SubscriberRecord } from './subscriber.ts';

export interface Report {
  seed: number;
  seconds: number;
  isDrained: boolean;
  history: History;
  final: FinalState;
  timeline: readonly Injection[];
  calm: readonly Window[];
  /** Of the whole database, taken while faults struck. */
  snapshots: number;
  subscriber: SubscriberRecord;
  folder: string;
  violations: Violation[];
}

/** Of the lines about violations; the file has more. */
const SHOWN_MAX = 20;
/** Of the violations in the file. */
const WRITTEN_MAX = 1000;
/** Of one violation on the screen. */
const CHARACTERS_MAX = 2000;
/** Around a violation, in its file. */
const AROUND_MS = 5000;
const ATTEMPTS_MAX = 400;

export function injectedTimes({ timeline }: Pick<Report, 'timeline'>): Map<string, number> {
  const names = [...new Set(timeline.map(({ fault }) => fault))].sort();
  return new Map(names.map((name) => [name, strikesOf(timeline, name)]));
}

export function summaryOf(report: Report) {
  const { seed, seconds, history, final, snapshots, subscriber, violations } = report;
  const { requests, ...results } = history.counts;
  const seen = new Set(subscriber.events.map(({ event }) => event.id)).size;
  return {
    seed,
    seconds,
    faults: Object.fromEntries(injectedTimes(report)),
    attempts: requests,
    ...results,
    codes: history.codes,
    applied: history.applied,
    openings: history.openings.length,
    changes: history.policyChanges.length,
    readings: history.readings.length,
    pages: history.pages.length,
    epochs: final.epochs.length,
    ledgerEntries: [...final.ledger.values()].reduce((sum, entries) => sum + entries.length, 0),
    events: seen,
    duplicateEvents: subscriber.events.length - seen,
    deadLetters: subscriber.dead.length,
    snapshots,
    violations: violations.length,
  };
}

export function printReport(report: Report, say: (line: string) => void): void {
  const { faults, codes, applied, ...counts } = summaryOf(report);
  say('');
  say('faults injected');
  for (const [fault, times] of Object.entries(faults)) say(`  ${fault.padEnd(36)} ${String(times).padStart(6)}`);
  say('seen');
  for (const [name, count] of Object.entries(counts)) say(`  ${spaced(name).padEnd(36)} ${String(count).padStart(6)}`);
  say('answered as applied');
  for (const [kind, count] of Object.entries(applied)) say(`  ${kind.padEnd(36)} ${String(count).padStart(6)}`);
  say('refusals');
  for (const [code, count] of Object.entries(codes)) say(`  ${code.padEnd(36)} ${String(count).padStart(6)}`);
  for (const { check, accountId, what } of report.violations.slice(0, SHOWN_MAX)) {
    say(`VIOLATION of "${check}"${accountId ? ` on ${accountId}` : ''}: ${what.slice(0, CHARACTERS_MAX)}`);
  }
  if (report.violations.length > SHOWN_MAX) say(`... and ${report.violations.length - SHOWN_MAX} more`);
}

/** @returns the file. The logs of the processes lie beside it. */
export function writeHistory(report: Report): string {
  const { history, final, timeline, subscriber, violations, calm, folder } = report;
  const file = path.join(folder, 'history.json');
  const around = violations.slice(0, SHOWN_MAX).map((violation) => {
    const { accountId, atMs } = violation;
    const near = (ms: number) => atMs === undefined || Math.abs(ms - atMs) < AROUND_MS;
    return {
      ...violation,
      faults: timeline.filter(
        ({ startMs, endMs }) => near(startMs) || near(endMs) || (startMs < atMs! && endMs > atMs!),
      ),
      attempts: history.attempts
        .filter(({ operation, startMs }) => operation.legs.some((leg) => leg.accountId === accountId) && near(startMs))
        .slice(-ATTEMPTS_MAX),
      policyChanges: history.policyChanges.filter((change) => change.accountId === accountId && near(change.startMs)),
      ledger: final.ledger.get(accountId ?? '')?.slice(-ATTEMPTS_MAX),
      events: subscriber.events
        .filter(({ event, atMs: seenMs }) => event.data.accountId === accountId && near(seenMs))
        .slice(-ATTEMPTS_MAX),
    };
  });
  const written = violations.slice(0, WRITTEN_MAX);
  writeFileSync(
    file,
    JSON.stringify({ summary: summaryOf(report), violations: written, calm, timeline, around }, null, 1),
  );
  return file;
}

function spaced(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}
