// Guarantees 1, 2 and 4 at the end: each account's entries are its versions 0..n, each is the one before plus what it says,
// the last one is the account, time and epoch never run backwards, and no balance was ever outside the limits of its moment.
import type { Entry, FinalState } from '../final-state.ts';
import type { AccountState } from '../history.ts';
import type { Cases, CheckInput, Violation } from './evidence.ts';
import { policiesOf } from './evidence.ts';

type Report = (check: string, what: string) => void;
type Policies = ReturnType<typeof policiesOf>;

export function checkAccounts({ final, history }: CheckInput, cases: Cases): Violation[] {
  const violations: Violation[] = [];
  const policies = policiesOf(history);
  for (const accountId of final.ledger.keys()) {
    if (!final.accounts.has(accountId))
      violations.push({ check: 'conserved', accountId, what: 'has entries and is no account' });
  }
  for (const [accountId, account] of final.accounts) {
    const report: Report = (check, what) => violations.push({ check, accountId, what });
    const entries = final.ledger.get(accountId) ?? [];
    let before: Entry | undefined;
    let limits: Limits | undefined;
    for (const entry of entries) {
      checkStep(before, entry, final, report);
      checkForm(entry, report);
      limits = limitsAfter(limits, entry);
      checkLimits(entry, limits, report);
      checkPolicies(entry, cases, policies, report);
      before = entry;
    }
    checkLast(account, before, limits, entries.length, report);
  }
  return violations;
}

type Limits = Pick<AccountState, 'overdraftLimit' | 'maxBalance' | 'status'>;

/** As an entry left them. */
export function limitsAfter(before: Limits | undefined, entry: Entry): Limits | undefined {
  const { overdraftLimit, maxBalance, status } = entry;
  return overdraftLimit !== null && status !== null ? { overdraftLimit, maxBalance, status } : before;
}

function checkStep(before: Entry | undefined, entry: Entry, { epochs }: FinalState, report: Report): void {
  const { version, amount, heldChange, balance, held, epoch, previousEpoch, asset, createdAt } = entry;
  const last = before ?? { version: -1, balance: 0, held: 0, epoch: null, asset, createdAt: '' };
  if (version !== last.version + 1) report('gapless', `version ${version} follows ${last.version}`);
  else {
    if (balance !== last.balance + amount)
      report('conserved', `version ${version}: ${last.balance} and ${amount} make ${balance}`);
    if (held !== last.held + heldChange)
      report('conserved', `version ${version}: ${last.held} and ${heldChange} held make ${held}`);
    if (previousEpoch !== last.epoch)
      report('epochs', `version ${version} has the previous epoch ${previousEpoch}, and the one before ${last.epoch}`);
  }
  if (asset !== last.asset) report('gapless', `version ${version} counts ${asset}, the one before ${last.asset}`);
  if (epoch < (last.epoch ?? 0)) report('epochs', `version ${version} has epoch ${epoch} after ${last.epoch}`);
  if (!epochs.includes(epoch)) report('epochs', `version ${version} has epoch ${epoch}, which never was`);
  if (createdAt < last.createdAt) {
    report(
      'gapless',
      `version ${version} was created at ${createdAt}, before version ${last.version} at ${last.createdAt}`,
    );
  }
}

/** Only the opening and changes give limits, only holds change what is held, and only these three move no money. */
function checkForm({ version, type, amount, heldChange, holdId, overdraftLimit, status }: Entry, report: Report): void {
  const still = holdId === null ? [version === 0 ? 'account.opened' : 'account.changed'] : HOLD_TYPES;
  const right = amount > 0 ? ['balance.credited'] : amount < 0 ? ['balance.debited'] : still;
  if (!right.includes(type)) report('gapless', `version ${version} with the amount ${amount} is of type ${type}`);
  const givesLimits = overdraftLimit !== null && status !== null;
  if (givesLimits !== type.startsWith('account.'))
    report('gapless', `version ${version} of type ${type} has the wrong limits`);
  if (heldChange !== 0 && holdId === null) report('holds', `version ${version} changes what is held without a hold`);
}

const HOLD_TYPES = ['hold.placed', 'hold.changed', 'hold.released', 'hold.expired'];
/** These free what is held, whatever the status of the account. */
const FREEING = ['hold.released', 'hold.expired'];

/** By what the entries themselves say. */
function checkLimits(entry: Entry, limits: Limits | undefined, report: Report): void {
  if (!limits) return;
  const { version, type, amount, balance, held, reverses } = entry;
  const { overdraftLimit, maxBalance, status } = limits;
  if (balance - held < -overdraftLimit)
    report(
      'never overdrawn',
      `version ${version} left ${balance} with ${held} held, and the limit was ${overdraftLimit}`,
    );
  if (amount > 0 && reverses === null && maxBalance !== null && balance > maxBalance)
    report('never above', `version ${version} left ${balance}, and the highest balance was ${maxBalance}`);
  if (!type.startsWith('account.') && !FREEING.includes(type) && status !== 'open')
    report('answers', `version ${version} was accepted while it was ${status}`);
}

/** By what the clients had asked for. */
function checkPolicies(entry: Entry, cases: Cases, policies: Policies, report: Report): void {
  const { accountId, version, type, amount, balance, held, reference, reverses } = entry;
  const asked = cases.byId.get(reference ?? '');
  if (!asked) return;
  const { statuses, limitMax, ceilingMax } = policies(accountId, asked);
  if (amount < 0 && balance - held < -limitMax)
    report(
      'never overdrawn',
      `version ${version} left ${balance} with ${held} held, and the limit was at most ${limitMax}`,
    );
  if (amount > 0 && reverses === null && balance > ceilingMax)
    report('never above', `version ${version} left ${balance}, and the highest balance was at most ${ceilingMax}`);
  if (!statuses.has('open') && !FREEING.includes(type))
    report('answers', `version ${version} was accepted while the account was not open`);
}

function checkLast(
  account: AccountState & { epoch: number },
  last: Entry | undefined,
  limits: Limits | undefined,
  entries: number,
  report: Report,
): void {
  if (account.version !== entries - 1)
    report('conserved', `is at version ${account.version} and has ${entries} entries`);
  for (const member of ['balance', 'held', 'epoch', 'asset'] as const) {
    if (account[member] !== last?.[member])
      report('conserved', `has the ${member} ${account[member]}, and its last entry left ${last?.[member]}`);
  }
  for (const member of ['overdraftLimit', 'maxBalance', 'status'] as const) {
    if (account[member] !== limits?.[member])
      report('conserved', `has the ${member} ${account[member]}, and its entries say ${limits?.[member]}`);
  }
}
