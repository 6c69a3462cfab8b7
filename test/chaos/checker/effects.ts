// Guarantees 3, 5 and 6: each operation took effect once or not at all, as its answers say. An operation whose answers are
// all missing may have taken effect or not; but not twice, and nothing may be in the ledger that nobody asked for.
import type { FinalState } from '../final-state.ts';
import { now } from '../history.ts';
import type { Case, Cases, CheckInput, Violation } from './evidence.ts';
import { isRemembered, policiesOf } from './evidence.ts';

/** Refusals that come after a key was looked up: what was settled under it never gets one. */
const AFTER_THE_KEY = new Set(['account_not_found', 'account_closed', 'account_frozen']);
/** An entry has the time of the database, whose clock is this machine's; it may be slewed in the course of a run. */
const CLOCK_MS_MAX = 2000;

/** Answers to a misused key. The last four come before the key is looked at. */
const RIGHT_FOR_MISUSE = new Set([
  'idempotency_key_reused',
  'unavailable',
  'overloaded',
  'connection refused',
  'request_timeout',
  'rate_limited',
]);

/** When the clients' clock began. */
const wallClockMs = Date.now() - now();

export function checkEffects({ final, history }: CheckInput, cases: Cases): Violation[] {
  const violations = [...checkAskedFor(final, cases), ...[...cases.byId.values()].flatMap(checkCase)];
  for (const { operation, result, startMs } of cases.misuses) {
    const isRight = result.kind === 'unknown' || (result.kind === 'refused' && RIGHT_FOR_MISUSE.has(result.code));
    if (isRight) continue;
    const what = `${operation.id} used the key of another operation and was answered ${JSON.stringify(result)}`;
    violations.push({ check: 'once', accountId: operation.accountId, atMs: startMs, what });
  }
  const policies = policiesOf(history);
  for (const { operation, result, startMs, endMs } of history.attempts) {
    const { accountId } = operation;
    if (result.kind !== 'refused') continue;
    const report = (what: string) =>
      violations.push({ check: 'answers', accountId, atMs: startMs, what: `${operation.id}: ${what}` });
    if (result.code === 'account_not_found' && startMs > (cases.births.get(accountId)?.endMs ?? Infinity)) {
      report('the account was there, and was not found');
    }
    for (const status of ['frozen', 'closed'] as const) {
      if (result.code === `account_${status}` && !policies(accountId, { startMs, endMs }).statuses.has(status))
        report(`the account was open, and called ${status}`);
    }
  }
  return violations;
}

function checkAskedFor(final: FinalState, { byId }: Cases): Violation[] {
  const violations: Violation[] = [];
  for (const [accountId, entries] of final.ledger) {
    for (const entry of entries) {
      if (entry.type.startsWith('account.')) continue; // see changes.ts
      const asked = byId.get(entry.reference ?? '')?.operation;
      if (asked?.accountId === accountId && asked.amount === entry.amount && asked.actor === entry.actor) continue;
      violations.push({ check: 'asked for', accountId, what: `nobody asked for the entry ${JSON.stringify(entry)}` });
    }
  }
  return violations;
}

function checkCase({ operation, attempts, remembered, entries, startMs, endMs }: Case): Violation[] {
  const violations: Violation[] = [];
  const { id, accountId, key } = operation;
  const report = (check: string, what: string) =>
    violations.push({
      check,
      accountId,
      what: `${id}: ${what}`,
      ...(attempts[0] ? { atMs: attempts[0].startMs } : {}),
    });

  if (entries.length > 1) {
    const versions = entries.map(({ version }) => version).join(', ');
    report(
      'once',
      `took effect ${entries.length} times, in versions ${versions}${key === null ? '; it was sent once, without a key' : ''}`,
    );
  }
  const [entry] = entries;
  const isOpen = attempts.some(({ result }) => result.kind === 'unknown');
  const isApplied = remembered.some(({ result }) => result.kind === 'applied');
  const isDeclined = remembered.some(({ result }) => result.kind === 'declined');
  if (isApplied && isDeclined) report('once', 'was answered as applied and as declined');
  if (isApplied && !entry) report('never lost', 'was answered 200, and there is no entry');
  if (isDeclined && entry) report('once', `was declined, and there is an entry with version ${entry.version}`);
  if (!isApplied && !isDeclined && !isOpen && entry) {
    const codes = attempts.map(({ result }) => ('code' in result ? result.code : result.kind)).join(', ');
    report(
      'never unsure',
      `every answer said that nothing was changed (${codes}), and there is an entry with version ${entry.version}`,
    );
  }
  if (entry) {
    const createdMs = Date.parse(entry.createdAt) - wallClockMs;
    if (createdMs < startMs - CLOCK_MS_MAX || createdMs > endMs + CLOCK_MS_MAX)
      report('times', `was accepted at ${entry.createdAt}, which is not the time of its requests`);
  }
  if (attempts.some(({ result }) => result.kind === 'refused' && result.code === 'idempotency_key_reused')) {
    report('once', 'was called a reuse of its key, which its client used for nothing else');
  }

  const [first] = remembered;
  if (!first) return violations;
  const content = ({ result: { replayed, ...rest } }: (typeof remembered)[number]) => JSON.stringify(rest);
  for (const repeat of remembered) {
    if (content(repeat) !== content(first)) {
      report('once', `was answered ${content(first)}, and then ${content(repeat)}`);
    }
    if (key === null && repeat.result.replayed) report('once', 'has no key, and its answer is marked as a replay');
  }
  const originals = remembered.filter(({ result }) => !result.replayed).length;
  if (originals > 1) report('once', `${originals} answers claim to be the first`);
  const settledMs = Math.min(...remembered.map(({ endMs }) => endMs));
  for (const { result, startMs: sentMs } of attempts.filter((attempt) => !isRemembered(attempt))) {
    if (sentMs > settledMs && result.kind === 'refused' && AFTER_THE_KEY.has(result.code)) {
      report('once', `was settled, and its retry was answered ${result.code}`);
    }
  }
  if (entry && first.result.kind === 'applied') {
    const { balance, version, epoch, createdAt } = first.result;
    if (
      entry.balance !== balance ||
      entry.version !== version ||
      entry.epoch !== epoch ||
      entry.createdAt !== createdAt
    ) {
      report('gapless', `the answer ${content(first)} does not fit the entry ${JSON.stringify(entry)}`);
    }
  }
  return violations;
}
