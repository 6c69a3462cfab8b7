// Decides who may call what: checks the key of a request, the scope that a route needs, the
// accounts that the key is bound to, and the rate limit. With AUTH=off it only checks that the
// request is addressed to this machine and does not come from a web page of another origin.
import type { IncomingMessage } from 'node:http';
import type { RequestHandler, Response } from 'express';
import type { Scope } from '../../shared/api-key.ts';
import type { ApiSettings } from '../../shared/config.ts';
import type { Pool } from '../../shared/database.ts';
import type { Running } from '../../shared/lifecycle.ts';
import type { Logger } from '../../shared/logging.ts';
import { isLoopbackAuthority } from '../../shared/loopback.ts';
import { RequestProblem } from '../http/problems.ts';
import { requirePathInside } from './account-bound.ts';
import { bearerTokenOf, REALM } from './bearer-token.ts';
import { keyOf } from './key-of.ts';
import { type ApiKey, type Found, type KeyRingTimes, startKeyRing } from './key-ring.ts';
import { startLastUses } from './last-uses.ts';
import { isOfOtherOrigin, opensWindow } from './own-origin.ts';
import { createRateLimiter, type Taken } from './rate-limiter.ts';

export interface Access extends Running {
  /** Before everything but the open paths. */
  authenticate: RequestHandler;
  /**
   * Guards the handler with its scope, the bound of the key as far as the path shows it, and the
   * rate limit, for which a request counts 1.
   */
  allow(scope: Scope, handler: RequestHandler): RequestHandler;
  /**
   * Counts the updates of a request beyond the 1 it was already counted as. @throws RequestProblem
   * rate_limited.
   */
  countMore(response: Response, more: number, counted?: number): Promise<void>;
  /**
   * Whether the key of a request still counts: for answers that go on. False once it was revoked,
   * has expired, or could not be checked for a minute.
   */
  mayGoOn(response: Response): boolean;
  /** Whose share of the service a request takes from; one name for all where clients have no shares. */
  clientOf(response: Response): string;
  /**
   * The same for a request that was not authenticated yet: everyone without a known key counts as
   * one client. Never queries.
   */
  claimedBy(request: IncomingMessage): string;
  /** Why no key can be checked now; undefined while requests with a known key pass. */
  problem(): string | undefined;
}

/**
 * Paths that orchestrators, monitoring and developers read without a key, even while no key can be
 * checked. They name no account.
 */
const PAGES = ['/', '/docs', '/console'];
const OPEN_PATHS = new Set([...PAGES, '/livez', '/readyz', '/metrics', '/openapi.json', '/asyncapi.json']);
const OPEN_FOLDERS = ['/docs/', '/console/files/'];
const isOpen = (path: string) => OPEN_PATHS.has(path) || OPEN_FOLDERS.some((folder) => path.startsWith(folder));

export type AccessOptions = Pick<
  ApiSettings,
  'auth' | 'clientShares' | 'databaseUrl' | 'rateLimit' | 'rateLimitWindowS'
> & {
  /** Connections for periodic writes about keys. */
  pool: Pool;
  log: Logger;
};

/** Of all together. No key has it. */
const ANYONE = '';

export function createAccess(options: AccessOptions, ringTimes?: KeyRingTimes): Access {
  if (options.auth === 'off') return openToAll;
  const ring = startKeyRing(options, ringTimes);
  const limiter = createRateLimiter(options);
  const lastUses = startLastUses(options.pool, options.log);
  const isShared = options.clientShares === 'on';

  /** @throws RequestProblem unless it is a key. */
  function accept(found: Found, response: Response): void {
    if (typeof found === 'object') {
      response.locals.key = found;
      lastUses.note(found.id);
      return;
    }
    if (found !== 'unknown') throw new RequestProblem(found, { detail: 'The API key could not be checked.' });
    const detail = 'This API key is unknown, was revoked, or has expired.';
    throw unauthorized(`${REALM}, error="invalid_token"`, detail);
  }

  const authenticate: RequestHandler = (request, response, next) => {
    if (isOpen(request.path)) return next();
    const token = bearerTokenOf(request);
    if (token === undefined) {
      const detail = 'Send one header Authorization: Bearer, followed by a space and your API key.';
      throw unauthorized(REALM, detail);
    }
    const found = ring.find(token);
    if (!(found instanceof Promise)) {
      accept(found, response);
      return next();
    }
    return found.then((key) => {
      accept(key, response);
      if (!response.destroyed) next(); // a client that has left sends no more of its body: never wait for it
    });
  };

  /** @param counted of the same request, before. @throws RequestProblem rate_limited. */
  async function count(response: Response, limit: number, cost: number, counted = 0): Promise<void> {
    const key = keyOf(response) as ApiKey;
    const { windowS } = limiter;
    const total = cost + counted;
    const refuse = (advice: string): RequestProblem => {
      const detail = `The limit is ${limit} in ${windowS} s, and this request counts ${total}: ${advice}.`;
      return new RequestProblem('rate_limited', { detail });
    };
    if (total > limit) throw refuse('send fewer updates in one');
    const taken = await limiter.take(key, limit, cost);
    setRateLimitHeaders(response, limit, windowS, taken);
    if (taken.allowed) return;
    response.setHeader('retry-after', secondsUntil(taken.resetMs));
    throw refuse('retry it after Retry-After seconds');
  }

  return {
    authenticate,
    allow: (scope, handler) => (request, response, next) => {
      const key = keyOf(response) as ApiKey;
      if (!key.scopes.includes(scope)) throw lacksScope(scope);
      if (key.accountPrefix !== null) requirePathInside(key.accountPrefix, request);
      const limit = limiter.limitOf(key);
      if (limit === undefined) return handler(request, response, next);
      return count(response, limit, 1).then(() => {
        if (!response.destroyed) return handler(request, response, next);
      });
    },
    async countMore(response, more, counted = 1) {
      const limit = limiter.limitOf(keyOf(response) as ApiKey);
      if (limit !== undefined && more > 0) await count(response, limit, more, counted);
    },
    mayGoOn(response) {
      const key = keyOf(response) as ApiKey;
      const stillCounts = ring.stillCounts(key);
      if (stillCounts) lastUses.note(key.id);
      return stillCounts;
    },
    clientOf: (response) => (isShared ? (keyOf(response)?.actor ?? ANYONE) : ANYONE),
    claimedBy: (request) => (isShared ? (ring.known(bearerTokenOf(request) ?? '')?.actor ?? ANYONE) : ANYONE),
    problem: () => ring.problem(),
    async stop() {
      await Promise.all([ring.stop(), lastUses.stop()]);
    },
  };
}

function unauthorized(challenge: string, detail: string): RequestProblem {
  return new RequestProblem('unauthorized', { detail }, { 'www-authenticate': challenge });
}

function lacksScope(scope: Scope): RequestProblem {
  const detail = `This call needs an API key with the scope ${scope}.`;
  const headers = { 'www-authenticate': `${REALM}, error="insufficient_scope", scope="${scope}"` };
  return new RequestProblem('forbidden', { detail }, headers);
}

/**
 * A web page of another origin is recognized by headers that its browser adds. To the browser, a
 * page whose host name resolves to this machine (DNS rebinding) has this origin; it is recognized
 * by the Host header.
 */
const refuseOtherPages: RequestHandler = (request, _response, next) => {
  const { headers, path } = request;
  const isOpenPath = isOpen(path);
  if (!isOpenPath && headers.host && !isLoopbackAuthority(headers.host)) {
    const detail =
      'This service runs without API keys, so it only accepts requests to localhost. Use that name, or start it with AUTH=required.';
    throw new RequestProblem('misdirected', { detail });
  }
  if (isOfOtherOrigin(request) && !(isOpenPath && opensWindow(request))) {
    const detail = 'This service runs without API keys, so it refuses requests from web pages of another origin.';
    throw new RequestProblem('cross_origin', { detail });
  }
  return next();
};

const openToAll: Access = {
  authenticate: refuseOtherPages,
  allow: (_scope, handler) => handler,
  async countMore() {},
  mayGoOn: () => true,
  clientOf: () => ANYONE,
  claimedBy: () => ANYONE,
  problem: () => undefined,
  async stop() {},
};

/** https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/08/ */
function setRateLimitHeaders(response: Response, limit: number, windowS: number, { remaining, resetMs }: Taken): void {
  response.setHeader('ratelimit-policy', `"key";q=${limit};w=${windowS}`);
  response.setHeader('ratelimit', `"key";r=${remaining};t=${secondsUntil(resetMs)}`);
}

const secondsUntil = (ms: number) => Math.max(1, Math.ceil(ms / 1000));
