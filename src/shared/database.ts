// The one place that connects to PostgreSQL: every connection, pooled or not, is named, bounded in time, notices a dead
// peer, and runs with the same settings (session-settings.ts) before anything is sent over it.
import pg from 'pg';
import { addressOf } from './database-url.ts';
import { prepareSession, type SessionUse, UnfitServer } from './session-settings.ts';
import { withoutPassword } from './without-password.ts';

export { DatabaseError } from 'pg';

const CONNECT_TIMEOUT_MS = 5000;
const KEEP_ALIVE_DELAY_MS = 10_000;
/** The server's own timeout comes first: its answer is certain. */
const QUERY_TIMEOUT_MARGIN_MS = 1000;

export type Client = pg.Client;
export type Pool = pg.Pool;

/** bigint as a number: every bigint of ours is within +-(2^53 - 1), which the tables' constraints guarantee. */
const types: pg.CustomTypesConfig = {
  getTypeParser: (oid, format) =>
    oid === pg.types.builtins.INT8 ? (value: string) => Number(value) : pg.types.getTypeParser(oid, format),
};

/** Connects to what the URL says and to nothing else; not prepared yet. */
class PlainClient extends pg.Client {
  readonly searchPath: string | undefined;
  readonly #startup: Record<string, string>;

  /** @param service shows in pg_stat_activity as application_name. */
  constructor(databaseUrl: string, service: string, statementTimeoutMs: number) {
    const { searchPath, options, ...address } = addressOf(databaseUrl);
    const application_name = `highload-balance ${service}`;
    super({
      ...address,
      types,
      application_name,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      query_timeout: statementTimeoutMs > 0 ? statementTimeoutMs + QUERY_TIMEOUT_MARGIN_MS : 0,
      client_encoding: 'UTF8',
      keepAlive: true,
      keepAliveInitialDelayMillis: KEEP_ALIVE_DELAY_MS,
    });
    const { user, database } = address;
    this.searchPath = searchPath;
    this.#startup = { user, database, application_name, ...(options === undefined ? {} : { options }) };
  }

  /** The driver's own adds what PGOPTIONS, PGREPLICATION and PGAPPNAME say wherever its configuration is silent. */
  getStartupConf(): Record<string, string> {
    return this.#startup;
  }
}

/**
 * A connection that is ready for use. The caller ends it. Its loss fails the query in flight, or else the next one.
 * @param service shows in pg_stat_activity as application_name.
 * @param signal gives the attempt up.
 * @throws UnfitServer when the server cannot be used, else the error of PostgreSQL or the network.
 */
export async function openClient(
  databaseUrl: string,
  service: string,
  use: SessionUse = {},
  signal?: AbortSignal,
): Promise<Client> {
  signal?.throwIfAborted();
  const client = new PlainClient(databaseUrl, service, use.statementTimeoutMs ?? 0);
  client.on('error', () => {});
  const giveUp = () => destroyClient(client);
  signal?.addEventListener('abort', giveUp, { once: true });
  try {
    await client.connect().catch((error) => {
      destroyClient(client);
      throw error;
    });
    await prepare(client, use);
    return client;
  } finally {
    signal?.removeEventListener('abort', giveUp);
  }
}

/**
 * A pool for short statements that touch a few keys.
 * @param statementTimeoutMs also of a transaction that does nothing.
 * @param warn gets each doubt about the server as a sentence, once a process.
 */
export function createPool(
  databaseUrl: string,
  service: string,
  max: number,
  statementTimeoutMs: number,
  warn: (sentence: string) => void = () => {},
): Pool {
  return openPool(databaseUrl, service, max, { plans: 'indexed plans', statementTimeoutMs, warn });
}

/**
 * A pool whose connections are like those of {@link openClient}. Broken idle ones are dropped silently: the next query
 * opens a new one.
 * @throws Error when the URL is wrong.
 */
export function openPool(databaseUrl: string, service: string, max: number, use: SessionUse): Pool {
  addressOf(databaseUrl); // a wrong URL is reported here, not by the first query
  const pool = new pg.Pool({
    // Reads the URL at each connection, and with it certificates that were renewed.
    Client: class extends PlainClient {
      constructor() {
        super(databaseUrl, service, use.statementTimeoutMs ?? 0);
      }
    },
    onConnect: (client) => prepare(client as PlainClient, use), // the pool awaits it before it hands the client out
    max,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
  });
  pool.on('error', () => {});
  return pool;
}

async function prepare(client: PlainClient, use: SessionUse): Promise<void> {
  try {
    await prepareSession(client, use, client.searchPath);
  } catch (error) {
    destroyClient(client); // the pool would wait for the end of a server that may be hanging
    throw error;
  }
}

/** At once, unlike end(): that waits for a peer that may never answer. A statement in flight may still take effect. */
export function destroyClient(client: Client): void {
  (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
}

/** A sentence for a person whose database URL does not work. */
export function describeConnectionFailure(databaseUrl: string, error: unknown): string {
  const reason =
    error instanceof AggregateError ? String(error.errors[0]) : error instanceof Error ? error.message : String(error);
  const problem = error instanceof UnfitServer ? 'cannot be used' : 'does not answer';
  return `PostgreSQL at ${withoutPassword(databaseUrl)} ${problem}: ${reason}`;
}
