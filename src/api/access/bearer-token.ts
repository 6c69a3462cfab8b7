// The Authorization header of a request, as in RFC 6750.
import type { IncomingMessage } from 'node:http';
import { countOf } from '../http/request-head.ts';

/** How every challenge in WWW-Authenticate begins. */
export const REALM = 'Bearer realm="highload-balance"';

/** The bearer token; undefined when there is none, or two: Node keeps the first, a proxy may have looked at the last. */
export function bearerTokenOf(request: IncomingMessage): string | undefined {
  const token = /^Bearer +([A-Za-z0-9._~+/-]+=*)$/i.exec(request.headers.authorization ?? '')?.[1];
  return token !== undefined && countOf(request, 'authorization') === 1 ? token : undefined;
}
