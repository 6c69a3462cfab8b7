// The servers of one run, its own: nobody else's may be killed. Gone with the run, however it ends.
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { openPool, type Pool } from '../../src/shared/database.ts';
import { migrate } from '../../src/shared/migrations.ts';
import { chooseBackend, closeBackends, type DisposableBroker, type DisposablePostgres } from '../support/backends.ts';

export interface Servers {
  /** Absent where the database is a cluster. */
  postgres?: DisposablePostgres;
  broker: DisposableBroker;
  databaseUrl: string;
  /** Straight to the database, as superuser. */
  pool: Pool;
  /** For logs and the history of a run that failed; stays. */
  folder: string;
  stop(): Promise<void>;
}

export async function startServers(say: (line: string) => void): Promise<Servers> {
  const { backend } = await chooseBackend(say);
  say(`Starting PostgreSQL and RabbitMQ of this run: ${backend.description}`);
  const [postgres, broker] = await Promise.all([backend.startPostgres(), backend.startBroker()]);
  await migrate(postgres.url);
  const pool = openPool(postgres.url, 'test', 5, { access: 'any server', statementTimeoutMs: 60_000 });
  return {
    postgres,
    broker,
    databaseUrl: postgres.url,
    pool,
    folder: mkdtempSync(path.join(tmpdir(), 'highload-balance-chaos-')),
    async stop() {
      await pool.end();
      await Promise.all([postgres.stop(), broker.stop()]);
      await closeBackends();
    },
  };
}
