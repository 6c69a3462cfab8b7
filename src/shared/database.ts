// The one place that connects to PostgreSQL: every connection, pooled or not, is named, bounded in time, notices a dead
// peer, and runs with the same settings (session-settings.ts) before anything is sent over it.
import type { EventEmitter } from 'node:events';
import pg from 'pg';
import { addressOf } from './database-url.ts';
import { isSessionLent, type Rival } from './pooler.ts';
import { type FreshClient, prepareSession, type SessionUse, UnfitServer } from './session-settings.ts';
import { withoutPassword } from './without-password.ts';

export { DatabaseError } from 'pg';

const CONNECT_TIMEOUT_MS = 5000;
const KEEP_ALIVE_DELAY_MS = 10_000;
/** The server's own timeout is shorter: its answer is certain. */
const QUERY_TIMEOUT_MARGIN_MS = 1000;

export type Client = pg.Client;
export type Pool = pg.Pool;

/** bigint as a number: every bigint of ours is within +-(2^53 - 1), which the tables' constraints guarantee. */
const types: pg.CustomTypesConfig = {
  getTypeParser: (oid, format) =>
    oid === pg.types.builtins.INT8 ? (value: string) => Number(value) : pg.types.getTypeParser(oid, format),
};

/** Connects exactly as the URL says; not prepared yet. */
class PlainClient extends pg.Client {
  readonly databaseUrl: string;
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
    this.on('error', () => {}); // the query in flight fails with it, or the next one; without a listener the process would
    const { user, database } = address;
    this.databaseUrl = databaseUrl;
    this.searchPath = searchPath;
    this.#startup = { user, database, application_name, ...(options === undefined ? {} : { options }) };
  }

  /** The driver's own version falls back to PGOPTIONS, PGREPLICATION and PGAPPNAME. */
  getStartupConf(): Record<string, string> {
    return this.#startup;
  }
}

/**
 * A connection that is ready for use. The calling code ends it. Its loss fails the query in flight,
 * or else the next one. Unless `use` allows any server, it also counts as lost once the server
 * stops accepting writes, after the answers to what was sent.
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
  const giveUp = () => destroyClient(client);
  signal?.addEventListener('abort', giveUp, { once: true });
  try {
    await client.connect().catch((error) => {
      destroyClient(client);
      throw error;
    });
    await prepare(client, use);
    client.on('drain', () => isUnfit(client) && destroyClient(client));
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
 * A pool whose connections are like those of {@link openClient}. Broken idle ones are dropped
 * silently: the next query opens a new one. A connection whose server stopped accepting writes is
 * not used again, unless `use` allows any server.
 * @throws Error when the URL is wrong.
 */
export function openPool(databaseUrl: string, service: string, max: number, use: SessionUse): Pool {
  addressOf(databaseUrl); // a wrong URL is reported here, not by the first query
  const pool = new pg.Pool({
    // Reads the URL, and with it renewed certificates, for each connection.
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
  pool.on('release', (_error, client) => {
    if (isUnfit(client)) void client.end(); // the pool drops one that is ending
  });
  return pool;
}

/**
 * Reports, in milliseconds, how long the process is busy with data from the connections of a pool.
 *
 */
export function watchReading(pool: Pool, onRead: (ms: number) => void): void {
  pool.on('connect', (client) => {
    const { stream } = (client as unknown as { connection: { stream: EventEmitter } }).connection;
    let startedAtMs = 0;
    // The driver parses data and builds rows inside the stream's event: measured from a listener
    // before it to one after it.
    stream.prependListener('data', () => (startedAtMs = performance.now()));
    stream.on('data', () => onRead(performance.now() - startedAtMs));
  });
}

async function prepare(client: PlainClient, use: SessionUse): Promise<void> {
  try {
    const fresh = client as PlainClient & FreshClient;
    await prepareSession(fresh, use, client.searchPath, (backendPid) => {
      return isSessionLent(client.databaseUrl, client, backendPid, () => makeRival(client.databaseUrl));
    });
  } catch (error) {
    destroyClient(client); // the pool would wait for the end of a server that may be hanging
    throw error;
  }
  if (use.access !== 'any server') watchServer(client);
}

function makeRival(databaseUrl: string): Rival {
  const client = new PlainClient(databaseUrl, 'pooler check', 0);
  return { client, end: () => destroyClient(client) };
}

const unfit = new WeakSet<pg.ClientBase>();

/**
 * Whether its server has stopped accepting writes since it was opened: send nothing more over it.
 *
 */
export function isUnfit(client: pg.ClientBase): boolean {
  return unfit.has(client);
}

/** PostgreSQL reports both settings when they change, with the answer to a statement: watching them costs nothing. */
function watchServer(client: PlainClient): void {
  const { connection } = client as unknown as { connection: EventEmitter };
  connection.on('parameterStatus', ({ parameterName, parameterValue }: ParameterStatus) => {
    const isOn = (name: string) => parameterName === name && parameterValue === 'on';
    if (isOn('in_hot_standby') || isOn('default_transaction_read_only')) unfit.add(client);
  });
}

interface ParameterStatus {
  parameterName: string;
  parameterValue: string;
}

/**
 * Immediate, unlike end(), which waits for a peer that may never answer. A statement in flight may
 * still take effect.
 */
export function destroyClient(client: Client): void {
  (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
}

/** A sentence for a person whose database URL does not work. */
export function describeConnectionFailure(databaseUrl: string, error: unknown): string {
  const problem = error instanceof UnfitServer ? 'cannot be used' : 'does not answer';
  return `PostgreSQL at ${withoutPassword(databaseUrl)} ${problem}: ${reasonOf(error)}`;
}

/** The message of a failed connection or statement, in one line. */
export function reasonOf(error: unknown): string {
  const first: unknown = error instanceof AggregateError ? error.errors[0] : error; // of several addresses
  const message = first instanceof Error ? first.message : String(first);
  return message.startsWith('unsupported startup parameter') ? `${message}: ${NO_OPTIONS}` : message;
}

/** The only startup parameter that an operator chooses. */
const NO_OPTIONS =
  'the pooler does not pass on options; remove them from DATABASE_URL, use the parameter search_path=SCHEMA there, and set the rest for the role (ALTER ROLE ... SET)';
