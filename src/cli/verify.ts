// npm run verify: the operator's proof that balances, outbox and ledger agree, that the ledger is what was hashed, and that
// the hashes are still those that were kept elsewhere. Exits 1 when they do not, 2 when called in a wrong way.
import type pg from 'pg';
import { type BrokenHead, findBrokenHeads } from '../shared/chain-head.ts';
import { type Verification, verify } from '../shared/verification.ts';
import { readOptions, runCommand, withDatabase } from './command.ts';
import { readHeadFile } from './head-file.ts';

const HELP = `npm run verify -- [--heads FILE]

Proves that balances, outbox, ledger and hash chains agree. Only reads.

--heads   also that the chain heads in the file, kept since some earlier day, are still in the chains. JSON lines:
          what npm run --silent heads printed, or answers of GET /v1/accounts/{id}/chain-head`;

/** Broken heads named in a report; all are counted. */
const BROKEN_HEADS_NAMED_MAX = 20;

interface KeptHeads {
  kept: number;
  broken: number;
  /** The first of them. */
  named: BrokenHead[];
}

async function compareHeads(client: pg.Client, file: string): Promise<KeptHeads> {
  const result: KeptHeads = { kept: 0, broken: 0, named: [] };
  for await (const heads of readHeadFile(file)) {
    const broken = await findBrokenHeads(client, heads);
    result.kept += heads.length;
    result.broken += broken.length;
    result.named.push(...broken.slice(0, BROKEN_HEADS_NAMED_MAX - result.named.length));
  }
  return result;
}

function report(found: Verification, heads: KeptHeads | undefined): void {
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
  console.log(all === 0 ? 'verified' : 'NOT verified');
  if (all > 0) process.exitCode = 1;
}

await runCommand(async () => {
  const { heads: file, help } = readOptions({ heads: { type: 'string' }, help: { type: 'boolean' } }, HELP);
  if (help) return console.log(HELP);
  await withDatabase('verify', async (client) => {
    const heads = file === undefined ? undefined : await compareHeads(client, file);
    report(await verify(client), heads);
  });
});
