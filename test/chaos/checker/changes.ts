// Openings and changes of limits and status, as updates are checked: each entry was asked for, each answer has its entry, and a
// retry of what is in force already makes no other.
import type { Entry } from '../final-state.ts';
import type { PolicyChange } from '../history.ts';
import type { Cases, CheckInput, Violation } from './evidence.ts';

/** One change that a client wanted, with all requests for it. */
interface WantedChange {
  accountId: string;
  name: string;
  requests: PolicyChange[];
  entries: Entry[];
  /** It came into force between its first request and the first answer that knows about it. */
  startMs: number;
  endMs: number;
}

/** Names a change within its account: no two have the same limits and status. */
const tagOf = ({
  accountId,
  overdraftLimit,
  maxBalance,
  status,
}: Omit<PolicyChange, 'startMs' | 'endMs' | 'actor' | 'isCertain'>) =>
  `${accountId} ${overdraftLimit} ${maxBalance} ${status}`;

export function changesOf({ history, final }: Pick<CheckInput, 'history' | 'final'>): WantedChange[] {
  const changes = new Map<string, WantedChange>();
  for (const request of history.policyChanges) {
    const tag = tagOf(request);
    const { accountId, startMs, endMs, isCertain } = request;
    const none = {
      accountId,
      name: `the change to ${tag}`,
      requests: [],
      entries: [],
      startMs: Infinity,
      endMs: Infinity,
    };
    const change: WantedChange = changes.get(tag) ?? none;
    changes.set(tag, change);
    change.requests.push(request);
    change.startMs = Math.min(change.startMs, startMs);
    if (isCertain) change.endMs = Math.min(change.endMs, endMs);
  }
  for (const entries of final.ledger.values()) {
    for (const entry of entries) {
      if (entry.type === 'account.changed') changes.get(tagOf(entry as Entry & PolicyChange))?.entries.push(entry);
    }
  }
  return [...changes.values()];
}

export function checkChanges(input: CheckInput, cases: Cases): Violation[] {
  return [...checkOpenings(input, cases), ...checkWanted(input), ...checkAskedFor(input)];
}

function checkOpenings({ final }: CheckInput, { births }: Cases): Violation[] {
  const violations: Violation[] = [];
  for (const [accountId, { openings, endMs }] of births) {
    const report = (check: string, what: string) => violations.push({ check, accountId, what });
    const entry = final.ledger.get(accountId)?.[0];
    const opened = openings.filter(({ result }) => result === 'opened');
    if (opened.length > 1) report('once', `${opened.length} answers claim to have opened it`);
    if (endMs < Infinity && !entry) report('never lost', 'was opened, and there is no entry of it');
    if (!entry) continue;
    const mayHave = opened.length > 0 ? opened : openings.filter(({ result }) => result === 'unknown');
    const isWanted = mayHave.some(
      ({ asset, overdraftLimit, maxBalance, actor }) =>
        entry.asset === asset &&
        entry.overdraftLimit === overdraftLimit &&
        entry.maxBalance === maxBalance &&
        entry.actor === actor,
    );
    if (!isWanted || entry.status !== 'open' || entry.reference !== null)
      report('asked for', `nobody asked for this opening: ${JSON.stringify(entry)}`);
  }
  return violations;
}

function checkWanted(input: CheckInput): Violation[] {
  return changesOf(input).flatMap(({ accountId, name, requests, entries, startMs, endMs }) => {
    const violations: Violation[] = [];
    const report = (check: string, what: string) =>
      violations.push({ check, accountId, atMs: startMs, what: `${name}: ${what}` });
    if (endMs < Infinity && entries.length === 0) report('never lost', 'was answered 200, and there is no entry');
    // One that nobody answered may come late, after other changes, and is then one of its own.
    const late = requests.filter(({ isCertain }) => !isCertain).length;
    if (entries.length > 1 + late) {
      const versions = entries.map(({ version }) => version).join(', ');
      report('once', `${late} of its requests had no answer, and it came into force in versions ${versions}`);
    }
    for (const entry of entries) {
      if (requests.some(({ actor }) => actor === entry.actor)) continue;
      report('asked for', `nobody of that name asked for ${JSON.stringify(entry)}`);
    }
    return violations;
  });
}

function checkAskedFor(input: CheckInput): Violation[] {
  const wanted = new Set(changesOf(input).flatMap(({ entries }) => entries));
  return [...input.final.ledger.values()].flatMap((entries) =>
    entries.flatMap((entry) => {
      const { accountId, type, version } = entry;
      const isKnown =
        type === 'account.opened' ? input.history.openings.some((one) => one.accountId === accountId) : true;
      if (type === 'account.changed' ? wanted.has(entry) : isKnown) return [];
      return [{ check: 'asked for', accountId, what: `nobody asked for version ${version}: ${JSON.stringify(entry)}` }];
    }),
  );
}
