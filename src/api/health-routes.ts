// /livez: the process runs. /readyz: it can take updates, of any account. So PostgreSQL has the
// schema that this release needs, accepts writes and has room for them, and every lane has a
// connection. RabbitMQ is not part of it: updates are accepted while the broker is down, and
// published when it is back.
import type { RequestHandler } from 'express';
import { atMost } from '../shared/at-most.ts';
import { type Pool, reasonOf } from '../shared/database.ts';
import { inTime } from '../shared/in-time.ts';
import { refusalOfServer } from '../shared/server-state.ts';
import { UnfitServer } from '../shared/session-settings.ts';
import { readBacklog } from './relay/outbox-backlog.ts';

/** Longer than a healthy database takes to answer. */
const READING_MS_MAX = 5000;
/** Several load balancers may poll, each several times a second. */
const READINGS_PER_SECOND = 10;
/** Anyone who asks more often waits a little, so that frequent polling costs others nothing. */
const LIVE_PER_SECOND = 100;

export interface HealthOptions {
  /** Of its own: what clients read is not to make a process look unready. */
  healthPool: Pool;
  schemaVersion: number;
  /** What /readyz also reports: state that does not decide readiness. */
  relayState: () => object;
  laneCounts: () => object;
  /** What is wrong in this process although PostgreSQL answers, one sentence each. */
  partProblems: () => Promise<string[]>;
  /** A stop has begun: requests are still answered, but load balancers should send no more. */
  isStopping: () => boolean;
}

export function livez(): RequestHandler {
  const alive = atMost(LIVE_PER_SECOND, async () => ({ status: 'ok' }));
  return async (_request, response) => {
    response.json(await alive());
  };
}

export function readyz(options: HealthOptions): RequestHandler {
  const { healthPool, schemaVersion, relayState, laneCounts, partProblems, isStopping } = options;
  /** One reading at a time and a few in a second, however many clients ask. */
  const readDatabase = inTime(async () => {
    const database = await databaseState(healthPool, schemaVersion);
    return { database, outbox: database === 'ok' ? await readBacklog(healthPool).catch(() => undefined) : undefined };
  }, READING_MS_MAX);
  const readParts = inTime(partProblems, READING_MS_MAX);
  const read = atMost(READINGS_PER_SECOND, () => Promise.all([readDatabase(), readParts()]));
  const late = `no answer in ${READING_MS_MAX / 1000} s`;
  return async (_request, response) => {
    const [state, problems] = await read();
    const { database, outbox } = state ?? { database: `unavailable: ${late}`, outbox: undefined };
    const reasons = database === 'ok' ? [] : [`PostgreSQL: ${database}`];
    reasons.push(...(problems ?? [`connecting to PostgreSQL: ${late}`]));
    const status = isStopping() ? 'stopping' : reasons.length === 0 ? 'ok' : 'unavailable';
    response.status(status === 'ok' ? 200 : 503).json({
      status,
      ...(reasons.length > 0 && { reasons }),
      database,
      outbox,
      relay: relayState(),
      lanes: laneCounts(),
    });
  };
}

/** 'ok', or in a few words why no updates can be taken. */
export async function databaseState(pool: Pool, schemaVersion: number): Promise<string> {
  try {
    const version = await present(pool);
    // A newer schema is fine: in a rolling upgrade the migration comes before the processes.
    if (version < schemaVersion) return `has schema version ${version}, needs ${schemaVersion}: run migrate`;
    const { rows } = await pool.query<{ mayWrite: boolean }>(MAY_WRITE);
    if (!rows[0]?.mayWrite) return 'lacks functions or grants that this release needs: run migrate';
    return (await refusalOfServer(pool)) ?? 'ok';
  } catch (error) {
    return `${error instanceof UnfitServer ? 'cannot be used' : 'unavailable'}: ${reasonOf(error)}`;
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
