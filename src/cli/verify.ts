// npm run verify: the operator's proof that balances, outbox and ledger agree. Exits 1 when they do not.
import pg from 'pg';
import { readRuntime } from '../local/runtime.ts';
import { readDatabaseSettings, SettingsError } from '../shared/config.ts';
import { connectionOptions, describeConnectionFailure } from '../shared/database.ts';
import { type Verification, verify } from '../shared/verification.ts';

async function run(): Promise<void> {
  // Without a setting: the database of this clone's npm start.
  const { databaseUrl } = readDatabaseSettings({
    DATABASE_URL: process.env.DATABASE_URL || readRuntime()?.databaseUrl,
  });
  const client = new pg.Client(connectionOptions(databaseUrl, 'verify'));
  try {
    await client.connect();
  } catch (error) {
    throw new SettingsError(describeConnectionFailure(databaseUrl, error));
  }
  try {
    report(await verify(client));
  } finally {
    await client.end();
  }
}

function report(found: Verification): void {
  console.table({
    accounts: found.accounts,
    'ledger entries': found.ledgerEntries,
    'changes not yet in the ledger': found.pendingChanges,
    'accounts that do not add up': found.offendingAccounts,
  });
  for (const { accountId, problems } of found.offenders) console.log(`${accountId}: ${problems.join('; ')}`);
  const unnamed = found.offendingAccounts - found.offenders.length;
  if (unnamed > 0) console.log(`and ${unnamed} more`);
  console.log(found.offendingAccounts === 0 ? 'verified' : 'NOT verified');
  if (found.offendingAccounts > 0) process.exitCode = 1;
}

try {
  await run();
} catch (error) {
  if (!(error instanceof SettingsError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
