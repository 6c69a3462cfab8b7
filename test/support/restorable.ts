// A PostgreSQL of this machine that can be restored to a moment of its past, from a copy and its
// write-ahead log.
import { execFileSync } from 'node:child_process';
import { appendFileSync, chownSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type RunningPostgres, startPostgres } from '../../src/local/postgres.ts';
import { openClient } from '../../src/shared/database.ts';
import { onCleanUp, until } from './harness.ts';
import { temporaryFolder } from './local-backend.ts';
import { startReaper } from './reaper.ts';

export interface Restorable {
  server: RunningPostgres;
  /** Names this moment. */
  mark(): Promise<void>;
  /**
   * A second server, in the state of the marked moment; returns when it takes changes. The first
   * one has to be stopped.
   */
  restore(): Promise<RunningPostgres>;
}

const MARK = 'marked';

/** Both have the same logins. Stopped and deleted by cleanUp. @param begin changes the server before it is copied. */
export async function startRestorable(begin: (url: string) => Promise<void>): Promise<Restorable> {
  const reaper = startReaper();
  onCleanUp(() => reaper.close());
  const folder = temporaryFolder(reaper);
  const start = (name: string) =>
    startPostgres({
      ...{ dir: path.join(folder, name), sharedDir: folder, durable: false },
      onSpawn: (process) => reaper.add({ process }),
    });
  const ask = async (url: string, statement: string) => {
    const client = await openClient(url, 'test', { access: 'any server' });
    const { rows } = await client.query(statement).finally(() => client.end());
    return rows[0];
  };
  const first = await start('server');
  await begin(first.url);
  await ask(first.url, `ALTER SYSTEM SET wal_keep_size = '1GB'`); // its own folder is the archive
  await first.stop();
  execFileSync('cp', ['-a', path.join(folder, 'server'), path.join(folder, 'restored')]); // with owners and modes
  const server = await start('server');
  return {
    server,
    mark: () => ask(server.url, `SELECT pg_create_restore_point('${MARK}')`),
    async restore() {
      const dataDir = path.join(folder, 'restored', path.basename(server.dataDir));
      appendFileSync(
        path.join(dataDir, 'postgresql.auto.conf'),
        [
          `restore_command = 'cp "${server.dataDir}/pg_wal/%f" "%p"'`,
          `recovery_target_name = '${MARK}'`,
          `recovery_target_action = 'promote'\n`,
        ].join('\n'),
      );
      const signalFile = path.join(dataDir, 'recovery.signal');
      writeFileSync(signalFile, '');
      const { uid, gid } = statSync(dataDir);
      chownSync(signalFile, uid, gid);
      const restored = await start('restored');
      const isOpen = 'SELECT NOT pg_is_in_recovery() AS open';
      await until('the restored server takes changes', async () => (await ask(restored.url, isOpen)).open);
      return restored;
    },
  };
}
