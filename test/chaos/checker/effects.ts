// Guarantees 3, 5 and 6: each operation took effect once and whole or not at all, as its answers say. An operation whose answers
// are all missing may have taken effect or not; but not twice, and not in part.
import { type Applied, wallClock } from '../history.ts';
import type { Case, Cases, CheckInput, Remembered, Violation } from './evidence.ts';
import { isRemembered, policiesOf } from './evidence.ts';

/** Refusals that come before a key is looked up, or that are its own; what was settled under it never gets another. */
const BEFORE_THE_KEY = new Set(['unavailable', 'overloaded', 'connection refused', 'request_timeout', 'rate_limited']);
/** An entry has the time of the database, whose clock is this machine's. */
const CLOCK_MS_MAX = 2000;

export function checkEffects({ history }: CheckInput, cases: Cases): Violation[] {
  const violations = [...cases.byId.values()].flatMap(checkCase);
  for (const { operation, result, startMs } of cases.misuses) {
    const own = operation.kind === 'hold' ? 'hold_exists' : 'idempotency_key_reused';
    const isRight =
      result.kind === 'unknown' ||
      (result.kind === 'refused' && (result.code === own || BEFORE_THE_KEY.has(result.code)));
    if (isRight) continue;
    const what = `${operation.id} used the key of another operation and was answered ${JSON.stringify(result)}`;
    violations.push({ check: 'once', accountId: operation.legs[0].accountId, atMs: startMs, what });
  }
  const policies = policiesOf(history);
  for (const { operation, result, startMs, endMs } of history.attempts) {
    if (result.kind !== 'refused') continue;
    const accountIds = operation.legs.map((leg) => leg.accountId);
    const report = (what: string) => {
      const accountId = accountIds[0] as string;
      violations.push({ check: 'answers', accountId, atMs: startMs, what: `${operation.id}: ${what}` });
    };
    const wasThere = (id: string) => startMs > (cases.births.get(id)?.endMs ?? Infinity);
    if (result.code === 'account_not_found' && accountIds.every(wasThere))
      report('its accounts were there, and one was not found');
    for (const status of ['frozen', 'closed'] as const) {
      const mayBe = (id: string) => policies(id, { startMs, endMs }).statuses.has(status);
      if (result.code === `account_${status}` && !accountIds.some(mayBe))
        report(`its accounts were open, and one was called ${status}`);
    }
  }
  return violations;
}

type Report = (check: string, what: string) => void;

function checkCase(one: Case): Violation[] {
  const violations: Violation[] = [];
  const { operation, attempts, entries, remembered, startMs, endMs } = one;
  const { accountId } = operation.legs[0];
  const report: Report = (check, what) =>
    violations.push({
      ...{ check, accountId, what: `${operation.id}: ${what}` },
      ...(attempts[0] ? { atMs: attempts[0].startMs } : {}),
    });
  checkTimes(one, report);
  checkCount(one, report);
  const isApplied = remembered.some(({ result }) => result.kind === 'applied');
  const isDeclined = remembered.some(({ result }) => result.kind === 'declined');
  if (isApplied && isDeclined) report('once', 'was answered as applied and as declined');
  if (isApplied && entries.length === 0) report('never lost', 'was answered 200, and there is no entry');
  const versions = entries.map((entry) => `${entry.accountId} ${entry.version}`).join(', ');
  if (isDeclined && entries.length > 0) report('once', `was declined, and there are the entries ${versions}`);
  const isOpen = attempts.some(({ result }) => result.kind === 'unknown');
  if (!isApplied && !isDeclined && !isOpen && entries.length > 0) {
    const codes = attempts.map(({ result }) => ('code' in result ? result.code : result.kind)).join(', ');
    report(
      'never unsure',
      `every answer said that nothing was changed (${codes}), and there are the entries ${versions}`,
    );
  }
  if (attempts.some(({ result }) => result.kind === 'refused' && result.code === 'idempotency_key_reused')) {
    report('once', 'was called a reuse of its key, which its client used for nothing else');
  }
  if (startMs < endMs && remembered.length > 0) checkAnswers(one, report);
  return violations;
}

/** All of its legs, each once, or none. */
function checkCount({ operation: { key, legs }, entries }: Case, report: Report): void {
  if (entries.length === 0) return;
  const versions = entries.map((entry) => `${entry.accountId} ${entry.version}`).join(', ');
  const countIn = (list: readonly { accountId: string }[], accountId: string) =>
    list.filter((one) => one.accountId === accountId).length;
  const accountIds = [...new Set(legs.map((leg) => leg.accountId))];
  if (accountIds.some((id) => countIn(entries, id) > countIn(legs, id))) {
    const how = key === null ? '; it was sent without a key' : '';
    report('once', `took effect more than once, in ${versions}${how}`);
  }
  if (accountIds.some((id) => countIn(entries, id) < countIn(legs, id)))
    report('whole', `has ${legs.length} legs, and took effect in ${versions} alone`);
}

function checkTimes({ entries, startMs, endMs }: Case, report: Report): void {
  if (entries.length === 0) return;
  const { earliestMs, latestMs } = wallClock.between(startMs, endMs);
  for (const { createdAt } of entries) {
    const createdMs = Date.parse(createdAt);
    if (createdMs < earliestMs - CLOCK_MS_MAX || createdMs > latestMs + CLOCK_MS_MAX)
      report('times', `was accepted at ${createdAt}, which is not the time of its requests`);
  }
}

/** One first answer, equal to every other and to the entries. */
function checkAnswers({ operation: { key, kind }, attempts, remembered, entries }: Case, report: Report): void {
  const content = ({ result: { replayed, ...rest } }: Remembered) =>
    // Placing a hold again shows it as it is now; see hold-answers.ts.
    kind === 'hold' && rest.kind === 'applied' ? rest.createdAt : JSON.stringify(rest);
  const [first] = remembered as [Remembered];
  for (const repeat of remembered) {
    if (content(repeat) !== content(first))
      report('once', `was answered ${content(first)}, and then ${content(repeat)}`);
    if (key === null && kind !== 'hold' && repeat.result.replayed)
      report('once', 'has no key, and its answer is marked as a replay');
  }
  const originals = remembered.filter(({ result }) => !result.replayed).length;
  if (originals > 1) report('once', `${originals} answers claim to be the first`);
  const settledMs = Math.min(...remembered.map(({ endMs }) => endMs));
  for (const { result, startMs: sentMs } of attempts.filter((attempt) => !isRemembered(attempt))) {
    if (sentMs > settledMs && result.kind === 'refused' && !BEFORE_THE_KEY.has(result.code))
      report('once', `was settled, and its retry was answered ${result.code}`);
  }
  if (first.result.kind !== 'applied' || entries.length === 0) return;
  const latest = entries
    .map(({ createdAt }) => createdAt)
    .sort()
    .at(-1);
  if (first.result.createdAt !== latest || !first.result.legs.every((leg) => hasEntry(leg, entries))) {
    report('gapless', `the answer ${content(first)} does not fit the entries ${JSON.stringify(entries)}`);
  }
  const transferId = entries[0]?.transferId ?? null;
  if (first.result.transferId !== transferId) report('transfers', `was answered ${content(first)}, not ${transferId}`);
}

function hasEntry(leg: Applied['legs'][0], entries: Case['entries']): boolean {
  return entries.some(
    ({ accountId, amount, balance, version, epoch }) =>
      accountId === leg.accountId &&
      version === leg.version &&
      epoch === leg.epoch &&
      amount === leg.amount &&
      balance === leg.balance,
  );
}
