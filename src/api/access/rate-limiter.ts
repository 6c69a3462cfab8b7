// Counts what each key asks for in a window of fixed length, which begins with the first request after the last one's
// end. The processes of one API_PROCESSES share the count: it is the primary's. Other containers have counts of their own.
import cluster from 'node:cluster';
import { RateLimiterCluster, RateLimiterMemory } from 'rate-limiter-flexible';
import type { Logger } from '../../shared/logging.ts';
import type { ApiKey } from './key-ring.ts';

export interface RateLimiter {
  windowS: number;
  /** For a window; undefined for a key without a limit. */
  limitOf(key: ApiKey): number | undefined;
  /** Counts `cost` more. What is refused does not count, except for single requests, where it makes no difference. */
  take(key: ApiKey, limit: number, cost: number): Promise<Taken>;
}

export interface Taken {
  allowed: boolean;
  /** Left in this window. */
  remaining: number;
  /** Until the next window. */
  resetMs: number;
}

/**
 * How long the primary may take to answer. Then the request passes: the limit is for fairness and
 * is not a security boundary.
 */
const PRIMARY_TIMEOUT_MS = 1000;
/** A key that is over its limit is refused without asking for so long: its flood stays in the process that it hits. */
const REFUSE_UNASKED_MS = 200;

export interface RateLimiterOptions {
  /** Of keys without a limit of their own; undefined for none. */
  rateLimit?: number | undefined;
  rateLimitWindowS: number;
  log: Logger;
}

export function createRateLimiter({ rateLimit, rateLimitWindowS: windowS, log }: RateLimiterOptions): RateLimiter {
  // A counter for all limits, which are compared here: each key may have one of its own.
  const options = { keyPrefix: 'api-key', points: Number.MAX_SAFE_INTEGER, duration: windowS };
  const counter = cluster.isWorker
    ? new RateLimiterCluster({ ...options, timeoutMs: PRIMARY_TIMEOUT_MS })
    : new RateLimiterMemory(options);
  /**
   * By key id, for those over their limit; old ones are removed when their key sends another
   * request.
   */
  const refused = new Map<string, { untilMs: number; resetAtMs: number }>();
  let failing = false;

  return {
    windowS,
    limitOf: (key) => key.rateLimit ?? rateLimit,
    async take(key, limit, cost) {
      const now = performance.now();
      const recent = refused.get(key.id);
      if (recent && now < recent.untilMs) return { allowed: false, remaining: 0, resetMs: recent.resetAtMs - now };
      refused.delete(key.id);
      try {
        const { consumedPoints, msBeforeNext } = await counter.consume(key.id, cost);
        failing = false;
        if (consumedPoints <= limit) {
          return { allowed: true, remaining: limit - consumedPoints, resetMs: msBeforeNext };
        }
        if (cost > 1) await counter.reward(key.id, cost);
        else {
          const untilMs = now + Math.min(REFUSE_UNASKED_MS, msBeforeNext);
          refused.set(key.id, { untilMs, resetAtMs: now + msBeforeNext });
        }
        return { allowed: false, remaining: Math.max(0, limit - consumedPoints + cost), resetMs: msBeforeNext };
      } catch (error) {
        if (!failing) log.error({ err: error }, 'the rate limit cannot be counted; requests are let through');
        failing = true;
        return { allowed: true, remaining: limit, resetMs: windowS * 1000 };
      }
    },
  };
}
