// Reads DATABASE_URL, in one way for every connection: each host, port, user, password, database and TLS option that
// reaches the driver is the result of this file. Of the environment only PGPASSWORD, PGPASSFILE (or ~/.pgpass) and
// PGSSLMODE count, each where the URL is silent; docs/operations.md says so.
import { userInfo } from 'node:os';
import type { ClientConfig } from 'pg';
import { parse } from 'pg-connection-string';

const HOST_DEFAULT = 'localhost';
const PORT_DEFAULT = 5432;
/** A percent sign that encodes nothing: part of a password that was pasted as it is. */
const LONE_PERCENT = /%(?![0-9a-f]{2})/gi;

/** Where the server is and how to log in, as the driver takes it. */
export interface ServerAddress {
  host: string;
  port: number;
  user: string;
  /** Undefined: the driver looks for it in PGPASSWORD, then in PGPASSFILE. */
  password: string | undefined;
  database: string;
  /** Undefined: the driver follows PGSSLMODE. */
  ssl: Exclude<ClientConfig['ssl'], undefined> | undefined;
  sslnegotiation: 'postgres' | 'direct';
  /** `options=` of the URL, sent at the start as it is: poolers and hosts route by it. */
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
 * The same URL with every special character encoded once. The driver's parser sees that as it is meant; where it finds a
 * raw space or a lone percent sign it encodes the whole text again, and `%2F` in a password becomes `%252F`.
 */
function normalized(databaseUrl: string): URL {
  const text = databaseUrl.replace(LONE_PERCENT, '%25');
  if (!URL.canParse(text)) throw new Error('DATABASE_URL is not a correct URL');
  return new URL(text);
}
