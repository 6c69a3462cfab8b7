// The fault suite in its short form; `npm run test:chaos` is the long one.
import { expect, it } from 'vitest';
import { printReport, writeHistory } from './report.ts';
import { shortForm } from './short-form.ts';
import { runSuite } from './suite.ts';

const MET = [
  ...['insufficient_funds', 'balance_out_of_range', 'max_balance_exceeded', 'idempotency_key_reused'],
  ...['account_not_found', 'account_frozen', 'account_closed', 'asset_mismatch', 'version_mismatch'],
  ...['hold_exists', 'hold_closed', 'hold_expired', 'hold_amount_exceeded'],
  ...['not_reversible', 'already_reversed', 'reversal_exceeds'],
];
const APPLIED = ['update', 'atomic', 'transfer', 'reversal', 'hold', 'capture', 'release', 'hold change'];

it('keeps every guarantee while processes, servers and connections break', async () => {
  console.log(`Fault suite: SEED=${shortForm.seed}`);
  const report = await runSuite({ ...shortForm, say: console.log });
  printReport(report, console.log);
  if (report.violations.length > 0) console.log(`The history around the violations: ${writeHistory(report)}`);
  expect(report.violations.slice(0, 3)).toEqual([]); // the report shows more
  const { accepted, declined, unknown, replayed } = report.history.counts;
  for (const count of [accepted, declined, unknown, replayed, report.snapshots, report.history.pages.length])
    expect(count).toBeGreaterThan(0);
  // The run would prove less without them.
  expect(Object.keys(report.history.codes)).toEqual(expect.arrayContaining(MET));
  expect(Object.keys(report.history.applied)).toEqual(expect.arrayContaining(APPLIED));
});
