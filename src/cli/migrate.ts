// npm run migrate: brings the database at DATABASE_URL to the newest schema. Safe to repeat and to run concurrently.
import { readDatabaseSettings, SettingsError } from '../shared/config.ts';
import { describeConnectionFailure } from '../shared/database.ts';
import { MigrationError, migrate } from '../shared/migrations.ts';

try {
  const { databaseUrl } = readDatabaseSettings();
  try {
    const { version, applied } = await migrate(databaseUrl, console.log);
    console.log(`schema version ${version}${applied.length === 0 ? ', nothing to do' : ''}`);
  } catch (error) {
    if (error instanceof MigrationError) throw error;
    throw new SettingsError(describeConnectionFailure(databaseUrl, error));
  }
} catch (error) {
  if (!(error instanceof SettingsError || error instanceof MigrationError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
