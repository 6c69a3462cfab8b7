// npm run verify: proves to the operator that balances, outbox and ledger agree, that the ledger
// matches its hashes, and that the hashes still match those that were kept elsewhere.

import { SettingsError } from '../shared/config.ts';
import type { Client } from '../shared/database.ts';
import { type BrokenHead, findBrokenHeads } from '../shared/kept-heads.ts';
import { type Verification, verify } from '../shared/verification.ts';
import { UsageError } from './arguments.ts';
import { INTERRUPTED, runCommand, withDatabase } from './command.ts';
import { commandLine } from './command-line.ts';
import { countChanges } from './count-changes.ts';
import { readHeadFile } from './head-file.ts';
import { interruption, startProgress } from './progress.ts';
import type { Standby } from './standby.ts';
import { table } from './table.ts';

const HELP = `usage: highload-balance verify [--heads FILE [--cut-at EPOCH]...] [--json]

Proves that balances, outbox, ledger and hash chains agree, in one snapshot. Only reads. Reports its progress on
standard error every five seconds; if it is interrupted, nothing is proven.

--heads   also checks that the chain heads in the file, kept earlier, are still in the chains. JSON lines:
          the output of highload-balance heads, or answers of GET /v1/accounts/{id}/chain-head
--cut-at  an epoch that began when the database was restored to an older state, as far as you know: heads that
          were lost then are counted and are not errors. All other missing heads are errors, including heads older
          than the cut. Give the option once for each known restore
--json    one JSON document on standard output

Works on a standby too, for what it has replayed, and says so; with --json in "standby".

exit code: 0 verified; 1 not verified; 2 called incorrectly; 130 interrupted`;

/** Heads of a kind named in a report; all are counted. */
const HEADS_NAMED_MAX = 20;

interface KeptHeads {
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

async function compareHeads(client: Client, file: string, knownCuts: ReadonlySet<number>): Promise<KeptHeads> {
  const result: KeptHeads = { kept: 0, broken: 0, named: [], cut: 0, namedCut: [] };
  for await (const heads of readHeadFile(file)) {
    result.kept += heads.length;
    for (const head of await findBrokenHeads(client, heads)) {
      const isExcused = head.cutEpoch !== undefined && knownCuts.has(head.cutEpoch);
      const named = isExcused ? result.namedCut : result.named;
      if (named.length < HEADS_NAMED_MAX) named.push(head);
      result[isExcused ? 'cut' : 'broken'] += 1;
    }
  }
  return result;
}

/** @throws SettingsError for an epoch that this database never had: it would excuse nothing. */
async function checkCuts(client: Client, cuts: ReadonlySet<number>): Promise<void> {
  for (const cut of cuts) {
    const { rowCount } = await client.query('SELECT FROM epoch WHERE epoch = $1', [cut]);
    if (rowCount === 0) throw new SettingsError(`--cut-at ${cut}: this database has no such epoch.`);
  }
}

/** @throws UsageError */
function parseCuts(cuts: readonly string[] | undefined, file: string | undefined): Set<number> {
  if (cuts && file === undefined) throw new UsageError('--cut-at is only for kept heads: give --heads FILE too');
  for (const cut of cuts ?? []) {
    if (!/^[1-9]\d{0,15}$/.test(cut))
      throw new UsageError(`--cut-at ${cut}: an epoch must be a number such as 1795464000000`);
  }
  return new Set(cuts?.map(Number));
}

function isVerified(found: Verification, heads: KeptHeads | undefined): boolean {
  return found.offendingAccounts + (heads?.broken ?? 0) === 0;
}

function print(found: Verification, heads: KeptHeads | undefined, standby: Standby | undefined): void {
  const counts: [string, number][] = [
    ['accounts', found.accounts],
    ['ledger entries', found.ledgerEntries],
    ['changes not yet in the ledger', found.pendingChanges],
    ['entries not yet in the hash chains', found.unchainedEntries],
    ['accounts that do not add up', found.offendingAccounts],
  ];
  if (heads) counts.push(['kept heads', heads.kept], ['kept heads that are not in the chains', heads.broken]);
  if (heads && heads.cut > 0) counts.push(['kept heads lost in a known cut', heads.cut]);
  console.log(table(counts));
  for (const { accountId, version, cutEpoch } of heads?.namedCut ?? [])
    console.log(`${accountId}: the kept head of version ${version} was lost when epoch ${cutEpoch} began`);
  if (heads && heads.cut > heads.namedCut.length)
    console.log(`and ${heads.cut - heads.namedCut.length} more such heads`);
  for (const { accountId, problems } of found.offenders) console.log(`${accountId}: ${problems.join('; ')}`);
  for (const { accountId, problem } of heads?.named ?? []) console.log(`${accountId}: ${problem}`);
  const named = found.offenders.length + (heads?.named.length ?? 0);
  const all = found.offendingAccounts + (heads?.broken ?? 0);
  if (all > named) console.log(`and ${all - named} more`);
  const where = standby ? ', as far as this standby has replayed' : '';
  console.log(`${isVerified(found, heads) ? 'verified' : 'NOT verified'}${where}`);
}

/** The progress, relative to the amount at the start. */
async function verifyAloud(client: Client): Promise<Verification> {
  const due = await countChanges(client, undefined);
  let soFar: Verification | undefined;
  const progress = startProgress(() => {
    const { accounts = 0, ledgerEntries = 0, pendingChanges = 0 } = soFar ?? {};
    return `${accounts} accounts with ${ledgerEntries + pendingChanges} of about ${due} entries`;
  });
  try {
    return await verify(client, (found) => {
      soFar = found;
    });
  } finally {
    progress.end();
  }
}

await runCommand(async () => {
  const {
    heads: file,
    'cut-at': cutAt,
    json,
  } = commandLine(
    {
      heads: { type: 'string' },
      'cut-at': { type: 'string', multiple: true },
      json: { type: 'boolean' },
    },
    HELP,
  );
  const cuts = parseCuts(cutAt, file);
  interruption().addEventListener('abort', () => {
    console.error('Interrupted: nothing was proven.');
    process.exit(INTERRUPTED);
  });
  await withDatabase('verify', async (client, standby) => {
    await endWithUs(client);
    await checkCuts(client, cuts);
    const heads = file === undefined ? undefined : await compareHeads(client, file, cuts);
    const found = await verifyAloud(client);
    if (json)
      console.log(
        JSON.stringify({
          verified: isVerified(found, heads),
          ...found,
          ...(heads && { heads }),
          ...(standby && { standby }),
        }),
      );
    else print(found, heads, standby);
    if (!isVerified(found, heads)) process.exitCode = 1;
  });
});

/**
 * Otherwise the server continues an abandoned statement. Not every server platform supports this
 * setting.
 */
async function endWithUs(client: Client): Promise<void> {
  await client.query("SET client_connection_check_interval = '1s'").catch(() => {});
}
