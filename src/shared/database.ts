// How every part connects to PostgreSQL: named, bounded in time, with keep-alive so that a dead peer is noticed.
import pg from 'pg';
import { withoutPassword } from './without-password.ts';

const CONNECT_TIMEOUT_MS = 5000;

export type Client = pg.Client;
export type Pool = pg.Pool;

/** Statements that touch a few keys of tables that may be empty today and huge tomorrow: never plan a full scan. */
const INDEXED_PLANS = '-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off';
/**
 * Of the server's side: of a machine that vanished it lets go within 30 s, and of the relay's lock with it. By its defaults
 * that takes up to two hours.
 */
const PEER_LOST =
  '-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=4 -c tcp_user_timeout=30000';
const OPTIONS = `${INDEXED_PLANS} ${PEER_LOST}`;

/** bigint as a number: every bigint of ours is within +-(2^53 - 1), which the tables' constraints guarantee. */
const types: pg.CustomTypesConfig = {
  getTypeParser: (oid, format) =>
    oid === pg.types.builtins.INT8 ? (value: string) => Number(value) : pg.types.getTypeParser(oid, format),
};

/**
 * Options for a pg.Client.
 * @param service shows in pg_stat_activity as application_name.
 * @param plans `indexed plans` for a connection that only ever touches a few keys at a time.
 */
export function connectionOptions(
  databaseUrl: string,
  service: string,
  plans: 'any plans' | 'indexed plans' = 'any plans',
): pg.ClientConfig {
  return {
    types,
    ...(plans === 'indexed plans' ? withIndexedPlans(databaseUrl) : { connectionString: databaseUrl }),
    application_name: `highload-balance ${service}`,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
  };
}

/** Options in the URL would replace ours, so ours join them there. */
function withIndexedPlans(databaseUrl: string): pg.ClientConfig {
  if (!/[?&]options=/.test(databaseUrl)) return { connectionString: databaseUrl, options: OPTIONS };
  const url = new URL(databaseUrl);
  url.searchParams.set('options', `${url.searchParams.get('options')} ${OPTIONS}`);
  return { connectionString: url.href };
}

/** A pool for short statements. Its broken idle connections are dropped in silence: the next query opens a new one. */
export function createPool(databaseUrl: string, service: string, max: number, statementTimeoutMs: number): pg.Pool {
  const pool = new pg.Pool({
    ...connectionOptions(databaseUrl, service, 'indexed plans'),
    max,
    statement_timeout: statementTimeoutMs,
    query_timeout: statementTimeoutMs + 1000, // the server's own timeout first: its answer is certain
    idle_in_transaction_session_timeout: statementTimeoutMs,
  });
  pool.on('error', () => {});
  return pool;
}

/** At once, unlike end(): that waits for a peer that may never answer. A statement under way may still take effect. */
export function destroyClient(client: pg.Client): void {
  (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
}

/** A sentence for a person whose database URL does not work. */
export function describeConnectionFailure(databaseUrl: string, error: unknown): string {
  const reason =
    error instanceof AggregateError ? String(error.errors[0]) : error instanceof Error ? error.message : String(error);
  return `PostgreSQL at ${withoutPassword(databaseUrl)} does not answer: ${reason}`;
}
