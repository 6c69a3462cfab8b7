// The settings of every PostgreSQL session, overriding the server, database, role and shell. One
// statement sets them all and checks the server; no connection is handed out before that.
// docs/decisions/016 has the reasons, and what is left to the operator.
import type { ClientBase } from 'pg';
import { SESSION_LENT } from './pooler.ts';

const VERSION_MIN = 150_000;
/** Statement and answer together. */
const PREPARE_TIMEOUT_MS = 5000;

/**
 * How text is read and written: the driver's parsers, casts and the escaping of literals rely on
 * it.
 */
const TEXT = {
  DateStyle: 'ISO, MDY',
  IntervalStyle: 'postgres',
  TimeZone: 'UTC',
  client_encoding: 'UTF8',
  bytea_output: 'hex',
  extra_float_digits: '1',
  array_nulls: 'on', // off, an update without a key would get the key "NULL"
  standard_conforming_strings: 'on',
  backslash_quote: 'safe_encoding',
  quote_all_identifiers: 'off',
  transform_null_equals: 'off',
  client_min_messages: 'warning', // nothing reads notices
};

/** What a statement sees and how it commits. */
const TRANSACTIONS = {
  // The evaluator reads what others committed while it waited for locks.
  default_transaction_isolation: 'read committed',
  default_transaction_deferrable: 'off',
  // Off, so that a policy raises an error instead of silently hiding rows from the relay or verify.
  row_security: 'off',
  exit_on_error: 'off', // on, each refused statement would end its connection
  synchronous_commit: 'on', // raised, never lowered: see PREPARE
};

/** How the planner works. Costs and memory are the operator's. */
const PLANS = {
  enable_bitmapscan: 'on',
  enable_gathermerge: 'on',
  enable_hashagg: 'on',
  enable_hashjoin: 'on',
  enable_incremental_sort: 'on',
  enable_indexonlyscan: 'on',
  enable_indexscan: 'on',
  enable_material: 'on',
  enable_memoize: 'on',
  enable_mergejoin: 'on',
  enable_nestloop: 'on',
  enable_parallel_append: 'on',
  enable_parallel_hash: 'on',
  enable_partition_pruning: 'on',
  enable_seqscan: 'on',
  enable_sort: 'on',
  enable_tidscan: 'on',
  constraint_exclusion: 'partition',
  from_collapse_limit: '8',
  join_collapse_limit: '8',
  plan_cache_mode: 'auto',
  debug_parallel_query: 'off', // 16 and newer
  force_parallel_mode: 'off', // 15
};

/**
 * Statements that touch a few keys of tables that may be empty today and huge tomorrow: never plan
 * a full scan.
 */
const INDEXED_PLANS = { enable_seqscan: 'off', enable_hashjoin: 'off', enable_mergejoin: 'off', jit: 'off' };

/**
 * Always the generic plan: in a custom plan of apply_changes the arrays are flat, and reading an
 * element takes 1.35 µs instead of 0.25. Set here and not on the function, where each setting would
 * add 2 µs to every call.
 */
const FIXED_PLANS = { ...INDEXED_PLANS, plan_cache_mode: 'force_generic_plan' };

const PLANS_BY_USE = { 'any plans': {}, 'indexed plans': INDEXED_PLANS, 'fixed plans': FIXED_PLANS };

/**
 * If a client's machine vanishes, the server ends its session within 30 s, which frees the relay's
 * lock. By default that takes 2 hours.
 */
const PEER_LOST = { tcp_keepalives_idle: '10', tcp_keepalives_interval: '5', tcp_keepalives_count: '4' };
/**
 * The server also ends a connection whose client reads nothing for this long. So commands do not
 * have it: their reader may be a paused pipe.
 */
const UNACKNOWLEDGED_TIMEOUT_MS = 30_000;

/** What a connection is for. */
export interface SessionUse {
  /**
   * `indexed plans` for a connection that only ever touches a few keys at a time, `fixed plans` for
   * one that does so with the same few statements and any parameters; default `any plans`.
   */
  plans?: keyof typeof PLANS_BY_USE;
  /** `any server` for reading alone, which a standby can serve too; default `writable server`. */
  access?: 'writable server' | 'any server';
  /** Longest wait for PostgreSQL to answer one statement; default 0, no limit. */
  statementTimeoutMs?: number;
  /** Gets each doubt about the server as a sentence, once a process. */
  warn?: (sentence: string) => void;
}

/** Thrown when the server answers and cannot be used; says what to change. */
export class UnfitServer extends Error {
  override name = 'UnfitServer';
}

/** What sessions of this use run with, by setting. */
export function settingsFor(use: SessionUse, searchPath?: string): Record<string, string> {
  const statementTimeoutMs = String(use.statementTimeoutMs ?? 0);
  const plans = use.plans ?? 'any plans';
  return {
    ...TEXT,
    ...TRANSACTIONS,
    ...PLANS,
    ...PLANS_BY_USE[plans],
    ...PEER_LOST,
    tcp_user_timeout: String(plans === 'any plans' ? 0 : UNACKNOWLEDGED_TIMEOUT_MS),
    statement_timeout: statementTimeoutMs,
    idle_in_transaction_session_timeout: statementTimeoutMs,
    lock_timeout: '0', // the statement's own limit is enough, and its code is understood
    transaction_timeout: '0', // 17 and newer
    idle_session_timeout: '0', // it could end a connection just as a request uses it
    ...(searchPath === undefined ? {} : { search_path: searchPath }),
  };
}

/**
 * Sets nothing in a session other than the expected one ($3): a pooler may have lent it for this
 * statement only. Settings unknown to this server are skipped: they belong to a newer version.
 */
const PREPARE = `
  SELECT
    pg_catalog.count(pg_catalog.set_config(name, value, false)) AS settings,
    pg_catalog.pg_backend_pid() AS "backendPid",
    pg_catalog.current_setting('server_version_num')::int AS "versionNumber",
    pg_catalog.current_setting('server_version') AS version,
    pg_catalog.current_setting('server_encoding') AS "serverEncoding",
    pg_catalog.pg_is_in_recovery() AS "isInRecovery",
    pg_catalog.current_setting('default_transaction_read_only') = 'on' AS "isReadOnly",
    pg_catalog.current_setting('session_replication_role') AS "replicationRole",
    pg_catalog.current_setting('fsync') = 'on' AS fsync,
    pg_catalog.current_setting('full_page_writes') = 'on' AS "fullPageWrites"
  FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) AS wanted (name, value)
  WHERE pg_catalog.pg_backend_pid() = $3 AND pg_catalog.current_setting(name, true) IS NOT NULL
    -- A stricter value is what the operator asked for.
    AND NOT (name = 'synchronous_commit' AND pg_catalog.current_setting('synchronous_commit') = 'remote_apply')`;

/** What decides whether a server accepts writes. */
export interface WriteState {
  isInRecovery: boolean;
  /** default_transaction_read_only of this session. */
  isReadOnly: boolean;
}

interface ServerState extends WriteState {
  backendPid: number;
  versionNumber: number;
  version: string;
  serverEncoding: string;
  replicationRole: string;
  fsync: boolean;
  fullPageWrites: boolean;
}

/** A connection as the driver has it. */
export interface FreshClient extends ClientBase {
  /** The process id that the other end reported for the session: a pooler makes it up. */
  processID: number | null;
}

/**
 * Makes a fresh connection ready for use, in one round trip. The settings are not sent as start-up
 * parameters: poolers refuse those they do not know.
 * @param isLent whether a pooler lends that session to others; asked only where there is a pooler.
 * @throws UnfitServer, or the error of PostgreSQL or the connection. The client must not be used
 * after that.
 */
export async function prepareSession(
  client: FreshClient,
  use: SessionUse,
  searchPath: string | undefined,
  isLent: (backendPid: number) => Promise<boolean>,
): Promise<void> {
  const settings = settingsFor(use, searchPath);
  const prepare = async (backendPid: number | null): Promise<ServerState> => {
    const values = [Object.keys(settings), Object.values(settings), backendPid];
    const limit = { query_timeout: PREPARE_TIMEOUT_MS }; // the server's own is not set yet
    return (await client.query({ text: PREPARE, values, ...limit })).rows[0];
  };
  let server = await prepare(client.processID);
  const { backendPid } = server;
  if (backendPid !== client.processID) {
    if (await isLent(backendPid)) throw new UnfitServer(SESSION_LENT);
    server = await prepare(backendPid);
    if (server.backendPid !== backendPid) throw new UnfitServer(SESSION_LENT);
  }
  const reasons = problemsOf(server, use.access ?? 'writable server');
  if (reasons.length > 0) throw new UnfitServer(reasons.join('; '));
  for (const doubt of doubtsAbout(server)) warnOnce(doubt, use.warn);
}

/** What would break a guarantee or fail at run time. */
function problemsOf(server: ServerState, access: NonNullable<SessionUse['access']>): string[] {
  const problems: string[] = [];
  if (server.versionNumber < VERSION_MIN) problems.push(`it is PostgreSQL ${server.version}: 15 or newer is needed`);
  if (server.serverEncoding !== 'UTF8') {
    problems.push(`its database is encoded in ${server.serverEncoding}: make one with ENCODING 'UTF8'`);
  }
  if (server.replicationRole === 'replica') {
    problems.push('session_replication_role is replica, so no trigger and no foreign key would be checked: reset it');
  }
  const refusal = access === 'writable server' ? refusalOfChanges(server) : undefined;
  if (refusal !== undefined) problems.push(refusal);
  return problems;
}

/** Why the server accepts no writes; undefined if it does. */
export function refusalOfChanges({ isInRecovery, isReadOnly }: WriteState): string | undefined {
  if (isInRecovery) return 'it is a standby, in recovery: name the primary';
  return isReadOnly ? 'default_transaction_read_only is on, for the server, database or role' : undefined;
}

/**
 * Settings that can lose data only if the machine fails: test servers run like that, and some file
 * systems are safe.
 */
function doubtsAbout({ fsync, fullPageWrites }: ServerState): string[] {
  const doubts: string[] = [];
  if (!fsync) doubts.push('PostgreSQL runs with fsync off: a power cut can lose or destroy everything');
  if (!fullPageWrites) {
    doubts.push(
      'PostgreSQL runs with full_page_writes off: a power cut can destroy pages, unless the file system prevents it',
    );
  }
  return doubts;
}

const warned = new Set<string>();

function warnOnce(sentence: string, warn: SessionUse['warn']): void {
  if (!warn || warned.has(sentence)) return;
  warned.add(sentence);
  warn(sentence);
}
