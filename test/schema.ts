// npm run schema: writes migrations/schema.sql, the picture of the schema, from a new database on
// the embedded PostgreSQL.
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { takesNoOptions } from '../src/cli/command-line.ts';
import { startPostgres } from '../src/local/postgres.ts';
import { migrate } from '../src/shared/migrations.ts';
import { pictureOfSchema } from './support/schema-picture.ts';

takesNoOptions(`usage: npm run schema

Writes migrations/schema.sql, the picture of the schema, from a new database on the embedded PostgreSQL.`);

const FILE = fileURLToPath(new URL('../migrations/schema.sql', import.meta.url));

const dir = mkdtempSync(path.join(os.tmpdir(), 'highload-balance-schema-'));
chmodSync(dir, 0o755); // the account of root's PostgreSQL passes through it
try {
  const server = await startPostgres({ dir, database: 'balance', durable: false, sharedDir: dir });
  try {
    await migrate(server.url);
    const client = new pg.Client({ connectionString: server.url });
    await client.connect();
    writeFileSync(FILE, await pictureOfSchema(client));
    await client.end();
    console.log(`wrote ${path.relative(process.cwd(), FILE)}`);
  } finally {
    await server.stop();
  }
} finally {
  rmSync(dir, { recursive: true, force: true });
}
