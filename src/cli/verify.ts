// npm run verify: the operator's proof that balances, outbox and ledger agree, that the ledger is what was hashed, and that
// the hashes are still those that were kept elsewhere.
import { type BrokenHead, findBrokenHeads } from '../shared/chain-head.ts';
import type { Client } from '../shared/database.ts';
import { type Verification, verify } from '../shared/verification.ts';
import { INTERRUPTED, readOptions, runCommand, withDatabase } from './command.ts';
import { countChanges } from './count-changes.ts';
import { readHeadFile } from './head-file.ts';
import { interruption, startProgress } from './progress.ts';

const HELP = `usage: highload-balance verify [--heads FILE] [--json]

Proves that balances, outbox, ledger and hash chains agree, all at one moment. Only reads. Says on standard error every five
seconds how far it is; interrupted, nothing is proven.

--heads   also that the chain heads in the file, kept since some earlier day, are still in the chains. JSON lines:
          what npm run --silent heads printed, or answers of GET /v1/accounts/{id}/chain-head
--json    one JSON document on standard output

exit code: 0 verified; 1 not verified; 2 called in a wrong way; 130 interrupted`;

/** Broken heads named in a report; all are counted. */
const BROKEN_HEADS_NAMED_MAX = 20;

interface KeptHeads {
  kept: number;
  broken: number;
  /** The first of them. */
  named: BrokenHead[];
}

async function compareHeads(client: Client, file: string): Promise<KeptHeads> {
  const result: KeptHeads = { kept: 0, broken: 0, named: [] };
  for await (const heads of readHeadFile(file)) {
    const broken = await findBrokenHeads(client, heads);
    result.kept += heads.length;
    result.broken += broken.length;
    result.named.push(...broken.slice(0, BROKEN_HEADS_NAMED_MAX - result.named.length));
  }
  return result;
}

function isVerified(found: Verification, heads: KeptHeads | undefined): boolean {
  return found.offendingAccounts + (heads?.broken ?? 0) === 0;
}

function print(found: Verification, heads: KeptHeads | undefined): void {
  console.table({
    accounts: found.accounts,
    'ledger entries': found.ledgerEntries,
    'changes not yet in the ledger': found.pendingChanges,
    'entries not yet in the hash chains': found.unchainedEntries,
    'accounts that do not add up': found.offendingAccounts,
    ...(heads && { 'kept heads': heads.kept, 'kept heads that are not in the chains': heads.broken }),
  });
  for (const { accountId, problems } of found.offenders) console.log(`${accountId}: ${problems.join('; ')}`);
  for (const { accountId, problem } of heads?.named ?? []) console.log(`${accountId}: ${problem}`);
  const named = found.offenders.length + (heads?.named.length ?? 0);
  const all = found.offendingAccounts + (heads?.broken ?? 0);
  if (all > named) console.log(`and ${all - named} more`);
  console.log(isVerified(found, heads) ? 'verified' : 'NOT verified');
}

/** How far it is, of what was there when it began. */
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
    json,
    help,
  } = readOptions({ heads: { type: 'string' }, json: { type: 'boolean' }, help: { type: 'boolean' } }, HELP);
  if (help) return console.log(HELP);
  interruption().addEventListener('abort', () => {
    console.error('Interrupted: nothing is proven.');
    process.exit(INTERRUPTED);
  });
  await withDatabase('verify', async (client) => {
    await endWithUs(client);
    const heads = file === undefined ? undefined : await compareHeads(client, file);
    const found = await verifyAloud(client);
    if (json) console.log(JSON.stringify({ verified: isVerified(found, heads), ...found, ...(heads && { heads }) }));
    else print(found, heads);
    if (!isVerified(found, heads)) process.exitCode = 1;
  });
});

/** Else the server goes on with a statement that nobody waits for. Not every platform of it can: then it does. */
async function endWithUs(client: Client): Promise<void> {
  await client.query("SET client_connection_check_interval = '1s'").catch(() => {});
}
