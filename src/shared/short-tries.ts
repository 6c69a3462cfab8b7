// Runs a transaction that changes the schema while updates are in flight. A lock that it waits for
// makes every later statement on that table wait too, so it waits for a moment only, rolls back,
// and starts again from the beginning.
import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { causeOf, MigrationError } from './migration-error.ts';
import { isCatalogRace, isDeadlock, isLockNotAvailable } from './sqlstate.ts';
import { SessionsWait } from './waiters-watch.ts';

/** Two tables of the write path can be waited for one after the other, and an update still waits less than 100 ms. */
const LOCK_WAIT_MAX_MS = 40;
/** Much longer than a try, so that updates run most of the time. */
const PAUSE_MS = 200;
const RUNNER_POLL_MS = 50;
const GIVE_UP_MS = 60_000;
/**
 * Another database's migration can create a role between two lookups: PostgreSQL caches the first
 * for the transaction.
 */
const RACES_MAX = 3;

/** Any number, the same for every runner. Advisory locks are per database. */
const RUNNER_LOCK = 7_252_310_001;

/**
 * Runs `work` in a transaction, one runner at a time, as often as it takes. It commits when `work`
 * returns; a try that throws SessionsWait is repeated.
 * @param giveUpMs how long locks are waited for, over all tries.
 * @param outcome what to say about the database where it gives up.
 * @throws MigrationError that names the blocking sessions, or what `work` throws.
 */
export async function inShortTries<Result>(
  client: pg.Client,
  work: () => Promise<Result>,
  giveUpMs: number = GIVE_UP_MS,
  outcome = 'Nothing was changed',
): Promise<Result> {
  const deadline = performance.now() + giveUpMs;
  for (let races = 0; ; ) {
    let isAlone = false;
    let pauseMs = PAUSE_MS;
    let isHolding = false;
    let cause: unknown;
    await client.query('BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE');
    try {
      await client.query(`SET LOCAL lock_timeout = ${LOCK_WAIT_MAX_MS}`);
      isAlone = (await client.query('SELECT pg_catalog.pg_try_advisory_xact_lock($1) AS taken', [RUNNER_LOCK])).rows[0]
        .taken;
      if (isAlone) {
        const result = await work();
        await client.query('COMMIT');
        return result;
      }
      pauseMs = RUNNER_POLL_MS;
    } catch (error) {
      cause = error;
      const refusal = causeOf(error);
      isHolding = refusal instanceof SessionsWait;
      const isLocked = isLockNotAvailable(refusal) || isDeadlock(refusal);
      if (isCatalogRace(refusal) && races < RACES_MAX) races += 1;
      else if (!isLocked && !isHolding) throw error;
    }
    await client.query('ROLLBACK');
    if (performance.now() > deadline) {
      const seconds = giveUpMs / 1000;
      const reason = !isAlone
        ? `another migrate has been running for ${seconds} s: ${await otherRunner(client)}`
        : isHolding
          ? `for ${seconds} s each try held its locks for longer than updates may wait: stop the API and the worker, or make the script shorter`
          : `a lock could not be acquired within ${seconds} s. ${await lockHolders(client)}`;
      throw new MigrationError(`${reason}. ${outcome}`, { cause });
    }
    await delay(pauseMs);
  }
}

interface Holder {
  pid: number | null;
  name: string | null;
  since: string | null;
  tables: string;
}

const LOCK_HOLDERS = `
  SELECT lock.pid, concat_ws(' of ', nullif(activity.application_name, ''), activity.usename) AS name,
         to_char(activity.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"') AS since,
         string_agg(DISTINCT class.relname, ', ') AS tables
  FROM pg_locks lock
  JOIN pg_class class ON class.oid = lock.relation AND class.relkind IN ('r', 'p')
  JOIN pg_namespace namespace ON namespace.oid = class.relnamespace AND namespace.nspname = current_schema
  LEFT JOIN pg_stat_activity activity ON activity.pid = lock.pid
  WHERE lock.granted AND lock.pid IS DISTINCT FROM pg_backend_pid()
    AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  GROUP BY lock.pid, activity.application_name, activity.usename, activity.xact_start
  ORDER BY activity.xact_start NULLS FIRST
  LIMIT 3`;

/** The oldest first: long transactions are in the way, not the short updates. */
async function lockHolders(client: pg.Client): Promise<string> {
  const { rows } = await client.query<Holder>(LOCK_HOLDERS);
  if (rows.length === 0) return 'No session holds one now';
  const sessions = rows.map(({ pid, name, since, tables }) =>
    pid === null
      ? `a prepared transaction (see pg_prepared_xacts) on ${tables}`
      : `process ${pid}${name ? ` (${name})` : ''}${since ? `, in a transaction since ${since},` : ''} on ${tables}`,
  );
  return `The oldest holders of locks: ${sessions.join('; ')}`;
}

const OTHER_RUNNER = `
  SELECT lock.pid, concat_ws(' of ', nullif(activity.application_name, ''), activity.usename) AS name
  FROM pg_locks lock LEFT JOIN pg_stat_activity activity USING (pid)
  WHERE lock.locktype = 'advisory' AND lock.granted AND lock.objsubid = 1
    AND (lock.classid::bigint << 32 | lock.objid::bigint) = $1
    AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())`;

async function otherRunner(client: pg.Client): Promise<string> {
  const [runner] = (await client.query<Holder>(OTHER_RUNNER, [RUNNER_LOCK])).rows;
  return runner ? `process ${runner.pid}${runner.name ? ` (${runner.name})` : ''}` : 'it has just ended';
}
