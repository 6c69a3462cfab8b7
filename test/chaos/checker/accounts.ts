// Guarantees 1, 2 and 4 at the end: each account's entries are its versions 1..n, each balance is the one before plus the
// amount, time never runs backwards, and no balance was ever below what the limit allowed.
import type { Cases, CheckInput, Violation } from './evidence.ts';
import { policiesOf } from './evidence.ts';

export function checkAccounts({ final, history }: CheckInput, cases: Cases): Violation[] {
  const violations: Violation[] = [];
  const policies = policiesOf(history);
  const report = (check: string, accountId: string, what: string) => violations.push({ check, accountId, what });
  for (const accountId of final.ledger.keys()) {
    if (!final.accounts.has(accountId)) report('conserved', accountId, 'has entries and is no account');
  }
  for (const [accountId, account] of final.accounts) {
    const entries = final.ledger.get(accountId) ?? [];
    let before = { version: 0, balance: 0, createdAt: '' };
    for (const entry of entries) {
      const { version, amount, balance, createdAt, reference } = entry;
      if (version !== before.version + 1) report('gapless', accountId, `version ${version} follows ${before.version}`);
      else if (balance !== before.balance + amount) {
        report('conserved', accountId, `version ${version}: ${before.balance} and ${amount} make ${balance}`);
      }
      if (createdAt < before.createdAt) {
        report(
          'gapless',
          accountId,
          `version ${version} was created at ${createdAt}, before version ${before.version} at ${before.createdAt}`,
        );
      }
      const asked = cases.byId.get(reference ?? '');
      if (asked && amount < 0) {
        const { statuses, limitMax } = policies(accountId, asked);
        if (balance < -limitMax)
          report('never overdrawn', accountId, `version ${version} left ${balance}, and the limit was ${limitMax}`);
        if (!statuses.has('open'))
          report('answers', accountId, `version ${version} was accepted while the account was frozen`);
      }
      before = entry;
    }
    if (account.version !== entries.length) {
      report('conserved', accountId, `is at version ${account.version} and has ${entries.length} entries`);
    }
    if (account.balance !== before.balance) {
      report('conserved', accountId, `has the balance ${account.balance}, and its last entry left ${before.balance}`);
    }
  }
  return violations;
}
