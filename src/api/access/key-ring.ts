// The active API keys, all of them, in memory: read from the database every other second,
// independently of requests. So a request costs no query, a revoked key stops within seconds, an
// expired key stops on time, and a flood of made-up tokens only costs map look-ups.
//
// A whole token that is not in memory may be new: its request waits for the next reading, which all
// such requests share and which begins ten times a second at most. While the database is
// unavailable, the last reading counts for a minute: enough for a restart, and harmless, since
// without the database nothing can be read or changed.
import { setTimeout as delay } from 'node:timers/promises';
import { ACTIVE_KEYS_MAX, idOf, isWhole, matches, type Scope } from '../../shared/api-key.ts';
import { createPool, reasonOf } from '../../shared/database.ts';
import type { Running } from '../../shared/lifecycle.ts';
import type { Logger } from '../../shared/logging.ts';

export interface ApiKey {
  id: string;
  /** The client that holds it. */
  actor: string;
  scopes: readonly Scope[];
  /** Its own limit in a window; null is the setting's. */
  rateLimit: number | null;
  /** It governs the accounts whose id begins so; null: all. */
  accountPrefix: string | null;
  tokenSha256: Buffer;
  /** By performance.now(); Infinity: never. */
  expiresAtMs: number;
}

/** unavailable: the database did not answer. overloaded: too many requests already wait for it. */
export type Found = ApiKey | 'unknown' | 'unavailable' | 'overloaded';

export interface KeyRing extends Running {
  /** Never rejects, and waits only where the token is new here. */
  find(token: string): Found | Promise<Found>;
  /**
   * Whether a key that was found is still valid, for long-running answers. Uses the last reading
   * and starts no new one, so a slow query ends nothing. Once that reading is too old to be
   * trusted, no key is valid.
   */
  stillCounts(key: ApiKey): boolean;
  /** The key of a token, if it is in memory. */
  known(token: string): ApiKey | undefined;
  /** Why no key can be checked now; undefined where those that are known can. */
  problem(): string | undefined;
}

const TIMES = { readIntervalMs: 2000, rereadIntervalMs: 100, trustedForMs: 60_000 };
export type KeyRingTimes = typeof TIMES;
const STATEMENT_TIMEOUT_MS = 2000;
/** Requests that may wait for a reading: a few for every possible client, but no crowd. */
const WAITING_MAX = 2 * ACTIVE_KEYS_MAX;

// The condition matches the index api_key_active, which keeps the reading small however many keys
// have expired.
const ACTIVE_KEYS = `
  SELECT key_id AS id, actor, scopes, rate_limit AS "rateLimit", account_prefix AS "accountPrefix", token_sha256 AS "tokenSha256",
         (extract(epoch FROM expires_at) - extract(epoch FROM clock_timestamp()))::float8 * 1000 AS "leftMs"
  FROM api_key
  WHERE revoked_at IS NULL AND coalesce(expires_at, 'infinity') > now()
  ORDER BY created_at, key_id
  LIMIT ${ACTIVE_KEYS_MAX}`;

/** leftMs: until it expires, by the clock of the database; null: never. */
type Row = Omit<ApiKey, 'expiresAtMs'> & { leftMs: number | null };

/** Connects to PostgreSQL as it becomes available. */
export function startKeyRing(
  { databaseUrl, log }: { databaseUrl: string; log: Logger },
  { readIntervalMs, rereadIntervalMs, trustedForMs }: KeyRingTimes = TIMES,
): KeyRing {
  // A connection of its own: a crowd of other queries does not put off a revocation.
  const pool = createPool(databaseUrl, 'api keys', 1, STATEMENT_TIMEOUT_MS);
  const stopping = new AbortController();
  let keys: ReadonlyMap<string, ApiKey> = new Map();
  let readAtMs = Number.NEGATIVE_INFINITY;
  let begunAtMs = Number.NEGATIVE_INFINITY;
  let failing: string | undefined;
  let reading: Promise<void> = Promise.resolve();
  let nextReading: Promise<void> | undefined;
  let waiting = 0;

  async function read(): Promise<void> {
    begunAtMs = performance.now();
    try {
      const { rows } = await pool.query<Row>(ACTIVE_KEYS);
      // Counted from before the query, so it expires slightly early and never late.
      const expiresAtMs = (leftMs: number | null) => begunAtMs + (leftMs ?? Number.POSITIVE_INFINITY);
      keys = new Map(rows.map(({ leftMs, ...key }) => [key.id, { ...key, expiresAtMs: expiresAtMs(leftMs) }]));
      readAtMs = begunAtMs; // what was revoked after that moment may be missing
      if (failing !== undefined) log.info('the API keys can be read again');
      failing = undefined;
    } catch (error) {
      if (failing === undefined)
        log.warn({ err: error }, 'the API keys cannot be read; the last known ones count for a minute');
      failing = reasonOf(error);
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

  const isTrusted = (nowMs = performance.now()) => nowMs - readAtMs < trustedForMs;

  function inMemory(id: string, token: string): Found | undefined {
    const nowMs = performance.now();
    if (!isTrusted(nowMs)) return undefined;
    const key = keys.get(id);
    if (!key) return undefined;
    return nowMs < key.expiresAtMs && matches(token, key.tokenSha256) ? key : 'unknown';
  }

  async function afterReading(id: string, token: string): Promise<Found> {
    if (failing !== undefined) return 'unavailable'; // it is retried continuously, so no request has to wait for it
    if (waiting >= WAITING_MAX) return 'overloaded';
    waiting += 1;
    await readAgain();
    waiting -= 1;
    return inMemory(id, token) ?? (failing === undefined ? 'unknown' : 'unavailable');
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
    stillCounts({ id }) {
      const nowMs = performance.now();
      return isTrusted(nowMs) && nowMs < (keys.get(id)?.expiresAtMs ?? 0);
    },
    known(token) {
      const id = idOf(token);
      const found = id === undefined ? undefined : inMemory(id, token);
      return typeof found === 'object' ? found : undefined;
    },
    problem: () => (isTrusted() ? undefined : failing),
    async stop() {
      stopping.abort();
      await running;
      await reading;
      await pool.end();
    },
  };
}
