// A PostgreSQL with all of its programs, as an operator has it, whom the runbooks tell to stop it,
// to replace its data and to start it again.
import { execFileSync } from 'node:child_process';
import { appendFileSync, chownSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { freePort } from '../../src/local/free-port.ts';
import { knownProcess, signal, waitForExit } from '../../src/local/process-end.ts';
import { serverAccount } from '../../src/local/server-account.ts';
import { openClient } from '../../src/shared/database.ts';
import { onCleanUp } from '../support/harness.ts';
import type { Reaper } from '../support/reaper.ts';

const VERSIONS = '/usr/lib/postgresql';
const PASSWORD = 'secret';
const END_TIMEOUT_MS = 20_000;

/** The folder with pg_dump, pg_basebackup and the others; undefined where there is none. */
export const programs = newestPrograms();

function newestPrograms(): string | undefined {
  const versions = existsSync(VERSIONS) ? readdirSync(VERSIONS) : [];
  const [newest] = versions.sort((one, other) => Number(other) - Number(one));
  return newest === undefined ? undefined : path.join(VERSIONS, newest, 'bin');
}

export interface Server {
  /** Of the superuser, without a database. */
  url: string;
  /** `127.0.0.1:5432` */
  address: string;
  dataDir: string;
  /** As the superuser. */
  query(database: string, sql: string): Promise<void>;
  /** SIGKILL to all of it, as when the machine is lost. */
  lose(): Promise<void>;
}

/** @param folder that the account of PostgreSQL can enter. */
export async function startServer(
  reaper: Reaper,
  folder: string,
  name: string,
  settings: Record<string, string | number> = {},
): Promise<Server> {
  const dataDir = path.join(folder, name);
  const port = await freePort();
  const passwordFile = path.join(folder, `${name}.password`);
  writeFileSync(passwordFile, PASSWORD);
  mkdirSync(dataDir);
  for (const file of [dataDir, passwordFile]) giveAway(file);
  run('initdb', [
    ...[`--pgdata=${dataDir}`, '--username=postgres', `--pwfile=${passwordFile}`, '--auth=scram-sha-256'],
    ...['--encoding=UTF8', '--locale=C', '--no-sync'],
  ]);
  const all = {
    ...{ port, listen_addresses: `'127.0.0.1'`, unix_socket_directories: `''`, max_connections: 100 },
    ...{ fsync: 'off', full_page_writes: 'off' }, // no power is cut here
    ...settings,
  };
  const lines = Object.entries(all).map(([setting, value]) => `${setting} = ${value}\n`);
  appendFileSync(path.join(dataDir, 'postgresql.conf'), lines.join(''));
  run('pg_ctl', ['start', `--pgdata=${dataDir}`, `--log=${path.join(dataDir, 'server.log')}`]);
  const note = () => {
    const server = postmasterIn(dataDir);
    if (server) reaper.add({ process: server });
    return server;
  };
  note();
  const lose = async () => {
    const server = note(); // a runbook may have started another one
    if (!server) return;
    signal(server, 'SIGQUIT');
    if (!(await waitForExit(server, END_TIMEOUT_MS))) throw new Error(`PostgreSQL in ${dataDir} did not end`);
  };
  onCleanUp(lose);
  const address = `127.0.0.1:${port}`;
  const url = `postgres://postgres:${PASSWORD}@${address}`;
  const query = async (database: string, sql: string) => {
    const client = await openClient(`${url}/${database}`, 'test', { access: 'any server' });
    await client.query(sql).finally(() => client.end());
  };
  return { url, address, dataDir, query, lose };
}

function postmasterIn(dataDir: string) {
  const file = path.join(dataDir, 'postmaster.pid');
  return existsSync(file) ? knownProcess(Number(readFileSync(file, 'utf8').split('\n')[0])) : undefined;
}

export function giveAway(file: string): void {
  const { uid, gid } = serverAccount();
  if (uid !== undefined && gid !== undefined) chownSync(file, uid, gid);
}

function run(program: string, args: readonly string[]): void {
  const { uid, gid } = serverAccount();
  execFileSync(path.join(programs as string, program), args, {
    ...{ cwd: '/', stdio: ['ignore', 'ignore', 'pipe'], env: { PATH: process.env.PATH, LC_ALL: 'C' } },
    ...(uid !== undefined && gid !== undefined && { uid, gid }),
  });
}
