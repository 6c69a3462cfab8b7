// npm run verify: proves to the operator that balances, outbox and ledger agree, that the ledger
// matches its hashes, and that the hashes still match those that were kept elsewhere.

import { SettingsError } from '../shared/config.ts';
import type { ChainHead } from '../shared/contract.ts';
import type { Client } from '../shared/database.ts';
import { type BrokenHead, findBrokenHeads, findBrokenHeadsHere } from '../shared/kept-heads.ts';
import { inSnapshot, type Verification, verify } from '../shared/verification.ts';
import { PLAN_SINCE, verifySince } from '../shared/verification-since.ts';
import { UsageError } from './arguments.ts';
import { INTERRUPTED, runCommand, withDatabase } from './command.ts';
import { commandLine } from './command-line.ts';
import { countChanges } from './count-changes.ts';
import { readHeadFile, readOrderedHeadFile } from './head-file.ts';
import { STDIN } from './lines.ts';
import { print } from './output.ts';
import { interruption, startProgress } from './progress.ts';
import { isVerified, type KeptHeads, printReport, type Report } from './verification-report.ts';

const HELP = `usage: highload-balance verify [--heads FILE | --since FILE] [--cut-at EPOCH]... [--json]

Proves that balances, outbox, ledger and hash chains agree, in one snapshot. Only reads. Reports its progress on
standard error every five seconds; if it is interrupted, nothing is proven.

--heads   also checks that the chain heads in the file, kept earlier, are still in the chains. JSON lines:
          the output of highload-balance heads, or answers of GET /v1/accounts/{id}/chain-head
--since   verifies only what came after the heads in the file. The file must be in the order that highload-balance
          heads prints. The time grows with what is new and with the number of accounts, not with the ledger. An
          account without a head is verified from its opening. If a head is not in the chains, nothing after it is
          verified
--cut-at  an epoch that you know began with a restore to an older state. Heads lost in that restore are counted, and
          are not errors. All other missing heads are errors, including heads older than the cut. Give the option once
          for each known restore. With --since, an account whose head was lost is verified from its opening
--json    one JSON document on standard output

What --since proves: every entry after the heads, as verify would; that the row of every account matches its last
entry; that each account's active holds add up to its held amount; and that the heads are in the chains.
It does not prove that the entries up to the heads are the ones that were hashed: of those, it reads only the last
segment of an account that has newer entries, and older ones that share a hold, transfer or reversal with a newer
entry. It does not prove that a hold or reversal agrees with its entries if all of them are older than the head. It
proves nothing about entries whose account has neither a row nor a head. For all this, and after --since has found
something, run verify without --since.

Works on a standby too, for what it has replayed, and says so; with --json in "standby".

exit code: 0 verified; 1 not verified; 2 called incorrectly; 130 interrupted`;

/** Heads of a kind named in a report; all are counted. */
const HEADS_NAMED_MAX = 20;

async function compareHeads(
  pages: AsyncIterable<readonly ChainHead[]>,
  findBroken: (heads: readonly ChainHead[]) => Promise<BrokenHead[]>,
  knownCuts: ReadonlySet<number>,
): Promise<KeptHeads> {
  const result: KeptHeads = { kept: 0, broken: 0, named: [], cut: 0, namedCut: [] };
  for await (const heads of pages) {
    result.kept += heads.length;
    for (const head of await findBroken(heads)) {
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
  if (cuts && file === undefined)
    throw new UsageError('--cut-at is only for kept heads: give --heads FILE or --since FILE too');
  for (const cut of cuts ?? []) {
    if (!/^[1-9]\d{0,15}$/.test(cut))
      throw new UsageError(`--cut-at ${cut}: an epoch must be a number such as 1795464000000`);
  }
  return new Set(cuts?.map(Number));
}

/** Reports the progress, relative to the amount at the start. */
async function aloud<Found extends Verification>(
  due: number,
  work: (onStep: (soFar: Verification) => void) => Promise<Found>,
): Promise<Found> {
  let soFar: Verification | undefined;
  const progress = startProgress(() => {
    const { accounts = 0, ledgerEntries = 0, pendingChanges = 0 } = soFar ?? {};
    return `${accounts} accounts with ${ledgerEntries + pendingChanges} of about ${due} entries`;
  });
  try {
    return await work((found) => {
      soFar = found;
    });
  } finally {
    progress.end();
  }
}

async function verifyWhole(client: Client, file: string | undefined, cuts: ReadonlySet<number>) {
  const heads =
    file === undefined
      ? undefined
      : await compareHeads(readHeadFile(file), (page) => findBrokenHeads(client, page), cuts);
  const due = await countChanges(client, undefined);
  return { heads, found: await aloud(due, (onStep) => verify(client, onStep)) };
}

/**
 * The file is read twice: all heads must be found in the chains before verification starts from any
 * of them.
 */
function verifyAfterHeads(client: Client, file: string, cuts: ReadonlySet<number>) {
  return inSnapshot(client, PLAN_SINCE, async () => {
    let before = 0;
    async function* counted() {
      for await (const heads of readOrderedHeadFile(file)) {
        for (const { version } of heads) before += (version ?? -1) + 1;
        yield heads;
      }
    }
    const heads = await compareHeads(counted(), (page) => findBrokenHeadsHere(client, page), cuts);
    if (heads.broken > 0) return { heads, found: undefined };
    const due = Math.max(0, (await countChanges(client, undefined)) - before);
    return { heads, found: await aloud(due, (onStep) => verifySince(client, readOrderedHeadFile(file), onStep)) };
  });
}

await runCommand(async () => {
  const {
    heads: file,
    since,
    'cut-at': cutAt,
    json,
  } = commandLine(
    {
      heads: { type: 'string' },
      since: { type: 'string' },
      'cut-at': { type: 'string', multiple: true },
      json: { type: 'boolean' },
    },
    HELP,
  );
  if (file !== undefined && since !== undefined)
    throw new UsageError('--since compares its heads too: give either --heads FILE or --since FILE');
  if (since === STDIN) throw new UsageError('--since reads its file twice: it cannot be standard input');
  const cuts = parseCuts(cutAt, file ?? since);
  interruption().addEventListener('abort', () => {
    console.error('Interrupted: nothing was proven.');
    process.exit(INTERRUPTED);
  });
  await withDatabase('verify', async (client, standby) => {
    await endWithUs(client);
    await checkCuts(client, cuts);
    const { found, heads } =
      since === undefined ? await verifyWhole(client, file, cuts) : await verifyAfterHeads(client, since, cuts);
    const report: Report = { found, heads, isSince: since !== undefined, standby };
    if (json)
      print(
        JSON.stringify({
          verified: isVerified(report),
          ...(since !== undefined && { since }),
          ...found,
          ...(heads && { heads }),
          ...(standby && { standby }),
        }),
      );
    else printReport(report);
    if (!isVerified(report)) process.exitCode = 1;
  });
});

/**
 * Otherwise the server continues an abandoned statement. Not every server platform supports this
 * setting.
 */
async function endWithUs(client: Client): Promise<void> {
  await client.query("SET client_connection_check_interval = '1s'").catch(() => {});
}
