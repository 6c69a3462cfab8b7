// The active API keys, all of them, in memory: read from the database every other second, whatever arrives. So a request
// costs no query, a revoked key stops within seconds, and a flood of made-up tokens stays a flood of look-ups in a map.
//
// A whole token that is not in memory may be new: its request waits for the next reading, which all such requests share
// and which begins ten times a second at most. While the database is away the last reading counts for a minute: enough
// for a restart, and harmless, since without the database nothing can be read or changed.
import { setTimeout as delay } from 'node:timers/promises';
import { ACTIVE_KEYS_MAX, idOf, isWhole, matches, type Scope } from '../../shared/api-key.ts';
import { createPool } from '../../shared/database.ts';
import type { Running } from '../../shared/lifecycle.ts';
import type { Logger } from '../../shared/logging.ts';

export interface ApiKey {
  id: string;
  /** The client that holds it. */
  actor: string;
  scopes: readonly Scope[];
  /** Its own limit in a window; null is the setting's. */
  rateLimit: number | null;
  tokenSha256: Buffer;
}

/** unavailable: the database did not tell. overloaded: too many others wait for it to tell. */
export type Found = ApiKey | 'unknown' | 'unavailable' | 'overloaded';

export interface KeyRing extends Running {
  /** Never rejects, and waits only where the token is new here. */
  find(token: string): Found | Promise<Found>;
}

const TIMES = { readIntervalMs: 2000, rereadIntervalMs: 100, trustedForMs: 60_000 };
const STATEMENT_TIMEOUT_MS = 2000;
/** Requests that may wait for a reading: some for every client there can be, and no crowd. */
const WAITING_MAX = 2 * ACTIVE_KEYS_MAX;

const ACTIVE_KEYS = `
  SELECT key_id AS id, actor, scopes, rate_limit AS "rateLimit", token_sha256 AS "tokenSha256"
  FROM api_key
  -- What this release does not know how to enforce must not be taken for a key that may do everything.
  WHERE revoked_at IS NULL AND account_prefix IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
  ORDER BY created_at, key_id
  LIMIT ${ACTIVE_KEYS_MAX}`;

/** Connects to PostgreSQL as it becomes available. */
export function startKeyRing(
  { databaseUrl, log }: { databaseUrl: string; log: Logger },
  { readIntervalMs, rereadIntervalMs, trustedForMs } = TIMES,
): KeyRing {
  // A connection of its own: a crowd of other queries does not put off a revocation.
  const pool = createPool(databaseUrl, 'api keys', 1, STATEMENT_TIMEOUT_MS);
  const stopping = new AbortController();
  let keys: ReadonlyMap<string, ApiKey> = new Map();
  let readAtMs = Number.NEGATIVE_INFINITY;
  let begunAtMs = Number.NEGATIVE_INFINITY;
  let failing = false;
  let reading: Promise<void> = Promise.resolve();
  let nextReading: Promise<void> | undefined;
  let waiting = 0;

  async function read(): Promise<void> {
    begunAtMs = performance.now();
    try {
      const { rows } = await pool.query<ApiKey>(ACTIVE_KEYS);
      keys = new Map(rows.map((key) => [key.id, key]));
      readAtMs = begunAtMs; // what was revoked after that moment may be missing
      if (failing) log.info('the API keys can be read again');
      failing = false;
    } catch (error) {
      if (!failing) log.warn({ err: error }, 'the API keys cannot be read; the last known ones count for a minute');
      failing = true;
    }
  }

  /** A reading that begins after this call. Those who call before it begins share it. */
  function readAgain(): Promise<void> {
    nextReading ??= reading.then(async () => {
      await pause(begunAtMs + rereadIntervalMs - performance.now());
      nextReading = undefined;
      if (stopping.signal.aborted) return;
      reading = read();
      await reading;
    });
    return nextReading;
  }

  /** Cut short by a stop. */
  const pause = (ms: number) => delay(Math.max(0, ms), undefined, { signal: stopping.signal }).catch(() => {});

  async function readForEver(): Promise<void> {
    while (!stopping.signal.aborted) {
      await readAgain();
      await pause(readIntervalMs);
    }
  }

  const isTrusted = () => performance.now() - readAtMs < trustedForMs;

  function inMemory(id: string, token: string): Found | undefined {
    if (!isTrusted()) return undefined;
    const key = keys.get(id);
    if (!key) return undefined;
    return matches(token, key.tokenSha256) ? key : 'unknown';
  }

  async function afterReading(id: string, token: string): Promise<Found> {
    if (failing) return 'unavailable'; // it is tried again all the time: nobody has to wait for that
    if (waiting >= WAITING_MAX) return 'overloaded';
    waiting += 1;
    await readAgain();
    waiting -= 1;
    return inMemory(id, token) ?? (failing ? 'unavailable' : 'unknown');
  }

  const running = readForEver();
  return {
    find(token) {
      const id = idOf(token);
      if (id === undefined) return 'unknown';
      const known = inMemory(id, token);
      if (known !== undefined) return known;
      return isWhole(token) ? afterReading(id, token) : 'unknown';
    },
    async stop() {
      stopping.abort();
      await running;
      await reading;
      await pool.end();
    },
  };
}
