// Reads DATABASE_URL, in one way for every connection: each host, port, user, password, database
// and TLS option that reaches the driver is the result of this file. From the environment only
// PGPASSWORD, PGPASSFILE (or ~/.pgpass) and PGSSLMODE are used, each only if the URL does not
// specify it; see docs/run.md.
import { userInfo } from 'node:os';
import type { ClientConfig } from 'pg';
import { parse } from 'pg-connection-string';
import { hasHostList } from './host-list.ts';

const HOST_DEFAULT = 'localhost';
const PORT_DEFAULT = 5432;
/** A percent sign that encodes nothing: part of a password that was pasted as it is. */
const LONE_PERCENT = /%(?![0-9a-f]{2})/gi;

/**
 * Why a URL with several hosts is refused, worded to follow its name. For each connection, libpq
 * would take the first server that claims to accept writes; in a failover two may claim it, and
 * what the wrong one accepts is lost.
 */
export const SEVERAL_HOSTS =
  'names several hosts: name one that always leads to the primary, such as HAProxy or a virtual address that your cluster manager moves. In a failover two servers may accept writes, and each connection would choose one independently';

/** Whether the URL names several hosts, in any of the ways that libpq knows. */
export function namesSeveralHosts(databaseUrl: string): boolean {
  if (hasHostList(databaseUrl)) return true;
  if (!URL.canParse(databaseUrl)) return false;
  const { searchParams } = new URL(databaseUrl);
  const given = ['host', 'hostaddr', 'port'].map((name) => searchParams.getAll(name));
  return given.some((values) => values.length > 1 || values[0]?.includes(','));
}

/** Where the server is and how to log in, as the driver takes it. */
export interface ServerAddress {
  host: string;
  port: number;
  user: string;
  /** Undefined: the driver reads PGPASSWORD, then PGPASSFILE. */
  password: string | undefined;
  database: string;
  /** Undefined: the driver follows PGSSLMODE. */
  ssl: Exclude<ClientConfig['ssl'], undefined> | undefined;
  sslnegotiation: 'postgres' | 'direct';
  /** `options=` of the URL, sent unchanged at startup: poolers and hosts route by it. */
  options: string | undefined;
  /** `search_path=` of the URL. */
  searchPath: string | undefined;
}

/**
 * Reads the files that sslrootcert, sslcert and sslkey name, so a connection made later sees renewed certificates.
 * @throws Error without the URL in it, which may hold a password.
 */
export function addressOf(databaseUrl: string): ServerAddress {
  const url = normalized(databaseUrl);
  const parsed = parse(url.href) as unknown as Record<string, string | undefined>;
  const user = parsed.user || userInfo().username;
  return {
    host: parsed.host || HOST_DEFAULT,
    port: Number(parsed.port || PORT_DEFAULT),
    user,
    password: parsed.password || undefined,
    // The driver's parser would leave a slash, a question mark and a number sign in it encoded.
    database: decodeURIComponent(url.pathname.slice(1)) || user,
    ssl: parsed.ssl as ServerAddress['ssl'],
    sslnegotiation: parsed.sslnegotiation === 'direct' ? 'direct' : 'postgres',
    options: parsed.options?.trim() || undefined,
    searchPath: parsed.search_path?.trim() || undefined,
  };
}

/** `host:port` of a URL, for a sentence. @throws Error like {@link addressOf}. */
export function serverOf(databaseUrl: string): string {
  const { host, port } = addressOf(databaseUrl);
  return host.startsWith('/') ? host : `${host}:${port}`;
}

/**
 * The same URL with every special character encoded once. The driver's parser reads that correctly;
 * if it finds a raw space or a lone percent sign, it encodes the whole text again, and `%2F` in a
 * password becomes `%252F`.
 */
function normalized(databaseUrl: string): URL {
  if (namesSeveralHosts(databaseUrl)) throw new Error(`DATABASE_URL ${SEVERAL_HOSTS}`);
  const text = databaseUrl.replace(LONE_PERCENT, '%25');
  if (!URL.canParse(text)) throw new Error('DATABASE_URL is not a correct URL');
  return new URL(text);
}
