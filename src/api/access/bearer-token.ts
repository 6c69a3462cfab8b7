// The Authorization header of a request, as RFC 6750 wants it.
import type { IncomingMessage } from 'node:http';

/** The bearer token; undefined when there is none, or two: Node keeps the first, a proxy may have looked at the last. */
export function bearerTokenOf(request: IncomingMessage): string | undefined {
  const token = /^Bearer +([A-Za-z0-9._~+/-]+=*)$/i.exec(request.headers.authorization ?? '')?.[1];
  return token !== undefined && countOf(request, 'authorization') === 1 ? token : undefined;
}

function countOf({ rawHeaders }: IncomingMessage, name: string): number {
  let count = 0;
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const sent = rawHeaders[index] as string;
    if (sent.length === name.length && sent.toLowerCase() === name) count += 1;
  }
  return count;
}
