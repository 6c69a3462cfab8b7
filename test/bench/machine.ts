// What the figures were measured on.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, release, totalmem, type } from 'node:os';
import type pg from 'pg';
import { openClient } from '../../src/shared/database.ts';

const COMMIT_PROBE_MS = 1000;

export interface Machine {
  cpu: string;
  cores: number;
  memoryGigabytes: number;
  system: string;
  node: string;
  postgres: string;
  /** By one connection, one row each: what a write to this disk costs. */
  commitsPerSecond: number;
  broker: string;
  commit: string;
}

export async function describeMachine(postgresUrl: string, broker: string): Promise<Machine> {
  const client = await openClient(postgresUrl, 'bench');
  try {
    const { rows } = await client.query(
      "SELECT current_setting('server_version') AS version, current_setting('fsync') AS fsync, current_setting('shared_buffers') AS buffers",
    );
    return {
      cpu: cpuName(),
      cores: cpus().length,
      memoryGigabytes: Math.round(totalmem() / 2 ** 30),
      system: `${type()} ${release().split('.', 2).join('.')}`,
      node: process.version,
      postgres: `${rows[0].version} (fsync ${rows[0].fsync}, shared_buffers ${rows[0].buffers}: the defaults)`,
      commitsPerSecond: await commitsPerSecond(client),
      broker,
      commit: commitId(),
    };
  } finally {
    await client.end();
  }
}

function cpuName(): string {
  const [first] = cpus();
  return (
    first?.model.trim() || /^model name\s*:\s*(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] || 'unknown'
  );
}

async function commitsPerSecond(client: pg.Client): Promise<number> {
  await client.query('CREATE TABLE probe (number integer)');
  const startedAtMs = performance.now();
  let commits = 0;
  for (; performance.now() - startedAtMs < COMMIT_PROBE_MS; commits += 1) {
    await client.query({ name: 'probe', text: 'INSERT INTO probe VALUES ($1)', values: [commits] });
  }
  const perSecond = (commits * 1000) / (performance.now() - startedAtMs);
  await client.query('DROP TABLE probe');
  return Math.round(perSecond);
}

/** With a plus where the sources differ from it. */
function commitId(): string {
  const git = (...args: string[]) =>
    spawnSync('git', args, { encoding: 'utf8', cwd: import.meta.dirname }).stdout.trim();
  const id = git('rev-parse', '--short', 'HEAD');
  return id && git('status', '--porcelain', '--', '../../src', '../../migrations') ? `${id}+` : id;
}
