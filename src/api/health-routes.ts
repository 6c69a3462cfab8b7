// /livez: the process runs. /readyz: it can take updates, so PostgreSQL answers with the schema that this release
// needs. RabbitMQ is no part of it: updates are accepted while the broker is away, and published when it is back.
import type { RequestHandler } from 'express';
import type { Pool } from '../shared/database.ts';
import { inTime } from '../shared/in-time.ts';
import { readBacklog } from './relay/outbox-backlog.ts';

/** Above any answer of a database that is well. */
const READING_MS_MAX = 5000;

export interface HealthOptions {
  /** Of its own: what clients read is not to make a process look unready. */
  healthPool: Pool;
  schemaVersion: number;
  /** What /readyz tells beside: state that does not decide readiness. */
  relayState: () => object;
  laneCounts: () => object;
  /** A stop has begun: answers are given, and whoever balances load shall send no more. */
  isStopping: () => boolean;
}

export const livez: RequestHandler = (_request, response) => {
  response.json({ status: 'ok' });
};

export function readyz(options: HealthOptions): RequestHandler {
  const { healthPool, schemaVersion, relayState, laneCounts, isStopping } = options;
  /** However many ask, one reading at a time. */
  const read = inTime(async () => {
    const database = await databaseState(healthPool, schemaVersion);
    return { database, outbox: database === 'ok' ? await readBacklog(healthPool).catch(() => undefined) : undefined };
  }, READING_MS_MAX);
  return async (_request, response) => {
    const { database, outbox } = (await read()) ?? { database: 'unavailable', outbox: undefined };
    const status = isStopping() ? 'stopping' : database === 'ok' ? 'ok' : 'unavailable';
    response
      .status(status === 'ok' ? 200 : 503)
      .json({ status, database, outbox, relay: relayState(), lanes: laneCounts() });
  };
}

/** 'ok', or in a few words why no updates can be taken. */
export async function databaseState(pool: Pool, schemaVersion: number): Promise<string> {
  try {
    const version = await present(pool);
    // A newer schema is fine: in a rolling upgrade the migration comes before the processes.
    if (version < schemaVersion) return `has schema version ${version}, needs ${schemaVersion}: run migrate`;
    const { rows } = await pool.query<{ mayWrite: boolean }>(MAY_WRITE);
    return rows[0]?.mayWrite ? 'ok' : 'lacks functions or rights that this release needs: run migrate';
  } catch {
    return 'unavailable';
  }
}

async function present(pool: Pool): Promise<number> {
  const { rows } = await pool.query(`SELECT to_regclass('schemaversion') IS NOT NULL AS migrated`);
  if (!rows[0].migrated) return 0;
  return (await pool.query('SELECT max(version) AS version FROM schemaversion')).rows[0].version;
}

/** Another schema of the same number, a function that is gone, or a login role without the rights. */
const MAY_WRITE = `
  SELECT count(*) = 3 AND coalesce(bool_and(has_function_privilege(pg_proc.oid, 'EXECUTE')), false)
         AND has_table_privilege('outbox', 'INSERT') AS "mayWrite"
  FROM pg_proc
  WHERE pronamespace = current_schema()::regnamespace AND proname IN ('apply_changes', 'open_account', 'change_account')`;
