// A PostgreSQL of this machine and a hot standby of it, which begins as a copy of the stopped
// primary.
import { execFileSync } from 'node:child_process';
import { appendFileSync, chownSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { type RunningPostgres, startPostgres } from '../../src/local/postgres.ts';
import { openClient } from '../../src/shared/database.ts';
import { onCleanUp, until } from './harness.ts';
import { temporaryFolder } from './local-backend.ts';
import { startReaper } from './reaper.ts';

export interface Pair {
  primary: RunningPostgres;
  standby: RunningPostgres;
  /** Waits until the standby has replayed all that the primary has written. */
  caughtUp(): Promise<void>;
  /** Makes the standby a primary; returns when it takes changes. */
  promote(): Promise<void>;
}

/** Both have the same logins. Stopped and deleted by cleanUp. @param begin changes the primary before it is copied. */
export async function startPair(begin: (primaryUrl: string) => Promise<unknown> = async () => {}): Promise<Pair> {
  const reaper = startReaper();
  onCleanUp(() => reaper.close());
  const folder = temporaryFolder(reaper);
  const start = (name: string) => {
    const dir = path.join(folder, name);
    return startPostgres({
      ...{ dir, sharedDir: folder, durable: false },
      onSpawn: (process) => reaper.add({ process }),
    });
  };
  const first = await start('primary');
  await begin(first.url);
  await first.stop();

  mkdirSync(path.join(folder, 'standby'));
  const dataDir = path.join(folder, 'standby', 'postgres');
  execFileSync('cp', ['-a', first.dataDir, dataDir]); // with owners and modes, which cpSync leaves out
  const primary = await start('primary');
  const { password } = new URL(primary.url);
  writeFileSync(path.join(folder, 'standby', 'postgres.json'), JSON.stringify({ password, port: 0 }));
  const signalFile = path.join(dataDir, 'standby.signal');
  writeFileSync(signalFile, '');
  const { uid, gid } = statSync(dataDir);
  chownSync(signalFile, uid, gid);
  appendFileSync(
    path.join(dataDir, 'postgresql.auto.conf'),
    `primary_conninfo = 'host=127.0.0.1 port=${primary.port} user=postgres password=${password}'\n`,
  );
  const standby = await start('standby');
  return {
    primary,
    standby,
    async caughtUp() {
      const client = await openClient(primary.url, 'test');
      const follower = await openClient(standby.url, 'test', { access: 'any server' });
      const { rows } = await client.query('SELECT pg_current_wal_insert_lsn() AS position');
      await until('the standby has caught up', async () => {
        const isThere = 'SELECT pg_last_wal_replay_lsn() >= $1 AS there';
        return (await follower.query(isThere, [rows[0].position])).rows[0].there;
      });
      await Promise.all([client.end(), follower.end()]);
    },
    async promote() {
      const client = await openClient(standby.url, 'test', { access: 'any server' });
      await client.query('SELECT pg_promote(true, 60)');
      await client.end();
    },
  };
}
