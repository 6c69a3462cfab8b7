// How every part connects to PostgreSQL: named, bounded in time, with keep-alive so that a dead peer is noticed.
import pg from 'pg';
import { withoutPassword } from './logging.ts';

const CONNECT_TIMEOUT_MS = 5000;

export type Client = pg.Client;
export type Pool = pg.Pool;

/** Options for a pg.Client. `service` shows in pg_stat_activity as application_name. */
export function connectionOptions(databaseUrl: string, service: string): pg.ClientConfig {
  return {
    connectionString: databaseUrl,
    application_name: `highload-balance ${service}`,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
  };
}

/** A pool for short statements. Its broken idle connections are dropped in silence: the next query opens a new one. */
export function createPool(databaseUrl: string, service: string, max: number, statementTimeoutMs: number): pg.Pool {
  const pool = new pg.Pool({
    ...connectionOptions(databaseUrl, service),
    max,
    statement_timeout: statementTimeoutMs,
    query_timeout: statementTimeoutMs + 1000, // the server's own timeout first: its answer is certain
    idle_in_transaction_session_timeout: statementTimeoutMs,
  });
  pool.on('error', () => {});
  return pool;
}

/** A sentence for a person whose database URL does not work. */
export function describeConnectionFailure(databaseUrl: string, error: unknown): string {
  const reason =
    error instanceof AggregateError ? String(error.errors[0]) : error instanceof Error ? error.message : String(error);
  return `PostgreSQL at ${withoutPassword(databaseUrl)} does not answer: ${reason}`;
}
