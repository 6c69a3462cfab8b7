// Who may call what: the key of a request, the scope that a route needs, and the rate limit. With AUTH=off only that the
// request was meant for this machine.
import type { RequestHandler, Response } from 'express';
import type { Scope } from '../../shared/api-key.ts';
import type { ApiSettings } from '../../shared/config.ts';
import type { Running } from '../../shared/lifecycle.ts';
import type { Logger } from '../../shared/logging.ts';
import { isLoopbackAuthority } from '../../shared/loopback.ts';
import { RequestProblem } from '../http/problems.ts';
import { bearerTokenOf } from './bearer-token.ts';
import { type ApiKey, type Found, startKeyRing } from './key-ring.ts';
import { createRateLimiter, type Taken } from './rate-limiter.ts';
import { createRefusalLog } from './refusal-log.ts';

export interface Access extends Running {
  /** Before everything but the open paths. */
  authenticate: RequestHandler;
  /** The handler behind its scope and the rate limit, for which a request counts 1. */
  allow(scope: Scope, handler: RequestHandler): RequestHandler;
  /** Counts what a request holds beyond the 1. @throws RequestProblem rate_limited. */
  countMore(response: Response, more: number): Promise<void>;
  /** Whether the key of a request was revoked since: for answers that go on. What cannot be told at present counts as not. */
  isRevoked(response: Response): Promise<boolean>;
}

/** The key of a request; undefined with AUTH=off. */
export function keyOf(response: Response): ApiKey | undefined {
  return response.locals.key;
}

/** The client behind a request, for what it changes; null with AUTH=off. */
export function actorOf(response: Response): string | null {
  return keyOf(response)?.actor ?? null;
}

/** What orchestrators, monitoring and developers ask without a key, also while no key can be checked. They name no account. */
const OPEN_PATHS = new Set(['/livez', '/readyz', '/metrics', '/openapi.json', '/asyncapi.json', '/docs', '/console']);
const OPEN_FOLDERS = ['/docs/', '/console/files/'];
const isOpen = (path: string) => OPEN_PATHS.has(path) || OPEN_FOLDERS.some((folder) => path.startsWith(folder));

const REALM = 'Bearer realm="highload-balance"';

export type AccessOptions = Pick<ApiSettings, 'auth' | 'databaseUrl' | 'rateLimit' | 'rateLimitWindowS'> & {
  log: Logger;
};

export function createAccess(options: AccessOptions): Access {
  if (options.auth === 'off') return openToAll;
  const ring = startKeyRing(options);
  const limiter = createRateLimiter(options);
  const noteRefusal = createRefusalLog(options.log);

  function unauthorized(response: Response, challenge: string, detail: string): RequestProblem {
    response.setHeader('www-authenticate', challenge);
    noteRefusal('unauthorized', undefined);
    return new RequestProblem('unauthorized', { detail });
  }

  /** @throws RequestProblem unless it is a key. */
  function accept(found: Found, response: Response): void {
    if (typeof found === 'object') {
      response.locals.key = found;
      return;
    }
    if (found !== 'unknown') throw new RequestProblem(found, { detail: 'The API key could not be checked.' });
    throw unauthorized(response, `${REALM}, error="invalid_token"`, 'This API key is not known here, or was revoked.');
  }

  const authenticate: RequestHandler = (request, response, next) => {
    if (isOpen(request.path)) return next();
    const token = bearerTokenOf(request);
    if (token === undefined) {
      const detail = 'Send one header Authorization: Bearer, followed by a space and your API key.';
      throw unauthorized(response, REALM, detail);
    }
    const found = ring.find(token);
    if (!(found instanceof Promise)) {
      accept(found, response);
      return next();
    }
    return found.then((key) => {
      accept(key, response);
      if (!response.destroyed) next(); // a client that is gone sends no body any more: nobody may wait for it
    });
  };

  /** @param counted of the same request, before. @throws RequestProblem rate_limited. */
  async function count(response: Response, limit: number, cost: number, counted = 0): Promise<void> {
    const key = keyOf(response) as ApiKey;
    const { windowS } = limiter;
    const total = cost + counted;
    const refuse = (advice: string): RequestProblem => {
      noteRefusal('rate_limited', key.actor);
      const detail = `The limit is ${limit} in ${windowS} s, and this request counts ${total}: ${advice}.`;
      return new RequestProblem('rate_limited', { detail });
    };
    if (total > limit) throw refuse('send fewer updates in one');
    const taken = await limiter.take(key, limit, cost);
    setRateLimitHeaders(response, limit, windowS, taken);
    if (taken.allowed) return;
    response.setHeader('retry-after', secondsUntil(taken.resetMs));
    throw refuse('repeat it after Retry-After seconds');
  }

  return {
    authenticate,
    allow: (scope, handler) => (request, response, next) => {
      const key = keyOf(response) as ApiKey;
      if (!key.scopes.includes(scope)) {
        response.setHeader('www-authenticate', `${REALM}, error="insufficient_scope", scope="${scope}"`);
        noteRefusal('forbidden', key.actor);
        throw new RequestProblem('forbidden', { detail: `This call needs an API key with the scope ${scope}.` });
      }
      const limit = limiter.limitOf(key);
      if (limit === undefined) return handler(request, response, next);
      return count(response, limit, 1).then(() => {
        if (!response.destroyed) return handler(request, response, next);
      });
    },
    async countMore(response, more) {
      const limit = limiter.limitOf(keyOf(response) as ApiKey);
      if (limit !== undefined && more > 0) await count(response, limit, more, 1);
    },
    isRevoked: async ({ req }) => (await ring.find(bearerTokenOf(req) ?? '')) === 'unknown',
    stop: () => ring.stop(),
  };
}

/**
 * A page that somebody reads on this machine can have its name lead here (DNS rebinding): to the browser it may then ask for
 * everything. It gives itself away by its name.
 */
const refuseOtherHosts: RequestHandler = ({ headers: { host = '' }, path }, _response, next) => {
  if (isLoopbackAuthority(host) || host === '' || isOpen(path)) return next();
  const detail = 'This service takes requests without API keys, and so only those to localhost.';
  throw new RequestProblem('misdirected', { detail });
};

const openToAll: Access = {
  authenticate: refuseOtherHosts,
  allow: (_scope, handler) => handler,
  async countMore() {},
  isRevoked: async () => false,
  async stop() {},
};

/** https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/08/ */
function setRateLimitHeaders(response: Response, limit: number, windowS: number, { remaining, resetMs }: Taken): void {
  response.setHeader('ratelimit-policy', `"key";q=${limit};w=${windowS}`);
  response.setHeader('ratelimit', `"key";r=${remaining};t=${secondsUntil(resetMs)}`);
}

const secondsUntil = (ms: number) => Math.max(1, Math.ceil(ms / 1000));
