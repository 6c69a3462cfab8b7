// npm run migrate: brings the database at DATABASE_URL to the schema of this release. Idempotent, safe to run concurrently.

import { readDatabaseSettings, SettingsError } from '../shared/config.ts';
import { describeConnectionFailure } from '../shared/database.ts';
import { MigrationError } from '../shared/migration-error.ts';
import { migrate } from '../shared/migrations.ts';
import { takesNoOptions } from './command-line.ts';

takesNoOptions(`usage: highload-balance migrate

Brings the database at DATABASE_URL to the schema of this release. Idempotent, safe to run concurrently.

exit code: 0 done; 1 refused, and the message says whether anything was changed; 2 called incorrectly`);

try {
  const { databaseUrl } = readDatabaseSettings();
  try {
    const { version, applied, changed, repaired } = await migrate(databaseUrl, console.log);
    for (const sentence of repaired) console.log(`repaired: ${sentence}`);
    const isUnchanged = applied.length + changed.length + repaired.length === 0;
    console.log(`schema version ${version}${isUnchanged ? ', nothing to do' : ''}`);
  } catch (error) {
    if (error instanceof MigrationError) throw error;
    throw new SettingsError(describeConnectionFailure(databaseUrl, error));
  }
} catch (error) {
  if (!(error instanceof SettingsError || error instanceof MigrationError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
