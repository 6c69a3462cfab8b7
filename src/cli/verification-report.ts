// What verify has found, as text.
import type { BrokenHead } from '../shared/kept-heads.ts';
import type { Verification } from '../shared/verification.ts';
import type { VerificationSince } from '../shared/verification-since.ts';
import { print } from './output.ts';
import type { Standby } from './standby.ts';
import { table } from './table.ts';

export interface KeptHeads {
  kept: number;
  /** Not in the chains, and not excused. */
  broken: number;
  /** The first of them. */
  named: BrokenHead[];
  /** Not in the chains, since the database lost commits in a restore that the operator knows of. */
  cut: number;
  /** The first of them. */
  namedCut: BrokenHead[];
}

export interface Report {
  /** Undefined if it was not even looked for, because a head is no beginning. */
  found: Verification | VerificationSince | undefined;
  heads: KeptHeads | undefined;
  /** Whether only what came after the heads was verified. */
  isSince: boolean;
  standby: Standby | undefined;
}

export function isVerified({ found, heads }: Report): boolean {
  return found?.offendingAccounts === 0 && (heads?.broken ?? 0) === 0;
}

export function printReport(report: Report): void {
  const { found, heads } = report;
  print(table([...(found ? countsOf(found) : []), ...(heads ? countsOfHeads(heads) : [])]));
  for (const { accountId, version, cutEpoch } of heads?.namedCut ?? [])
    print(`${accountId}: the kept head of version ${version} was lost when epoch ${cutEpoch} began`);
  if (heads && heads.cut > heads.namedCut.length) print(`and ${heads.cut - heads.namedCut.length} more such heads`);
  for (const { accountId, problems } of found?.offenders ?? []) print(`${accountId}: ${problems.join('; ')}`);
  for (const { accountId, problem } of heads?.named ?? []) print(`${accountId}: ${problem}`);
  const named = (found?.offenders.length ?? 0) + (heads?.named.length ?? 0);
  const all = (found?.offendingAccounts ?? 0) + (heads?.broken ?? 0);
  if (all > named) print(`and ${all - named} more`);
  print(verdict(report));
}

function countsOf(found: Verification | VerificationSince): [string, number][] {
  const isSince = 'accountsWithoutHead' in found;
  return [
    ['accounts', found.accounts],
    ...(isSince ? [['accounts without a kept head', found.accountsWithoutHead] as [string, number]] : []),
    [isSince ? 'ledger entries after the heads' : 'ledger entries', found.ledgerEntries],
    ['changes not yet in the ledger', found.pendingChanges],
    ['entries not yet in the hash chains', found.unchainedEntries],
    ['accounts that do not add up', found.offendingAccounts],
  ];
}

function countsOfHeads({ kept, broken, cut }: KeptHeads): [string, number][] {
  return [
    ['kept heads', kept],
    ['kept heads that are not in the chains', broken],
    ...(cut > 0 ? [['kept heads lost in a known cut', cut] as [string, number]] : []),
  ];
}

function verdict(report: Report): string {
  const { found, isSince, standby } = report;
  const where = standby ? ', as far as this standby has replayed' : '';
  if (!found)
    return 'NOT verified: a head that is not in the chains is no beginning. Nothing after the heads was looked at; verify --heads FILE looks at everything';
  if (!isVerified(report)) return `NOT verified${where}`;
  if (!isSince) return `verified${where}`;
  return `verified after the heads${where}. Not proven: that the entries up to the heads are the ones that were hashed (--help has the details). Run verify without --since for that`;
}
