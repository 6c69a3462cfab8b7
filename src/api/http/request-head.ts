// Checks the head of a request. If this service and a proxy in front of it read one differently,
// each would see requests that the other does not (request smuggling). Node's parser refuses most
// of that: two lengths, a length beside chunks, folded headers, lines that end in LF alone. This
// refuses the rest.
import type { IncomingMessage } from 'node:http';
import type { ProblemDetails } from '../../shared/contract.ts';

/** RFC 9110, 7.2 and RFC 3986, 3.2.2, without user information. */
const AUTHORITY = /^(\[[0-9a-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(:\d*)?$/i;

/** What is wrong with it; undefined when nothing is. */
export function faultOf(request: IncomingMessage): ProblemDetails | undefined {
  const { httpVersion, headers } = request;
  if (httpVersion !== '1.1' && httpVersion !== '1.0') return { detail: 'Send HTTP/1.1 or HTTP/1.0.' };
  const { host, 'transfer-encoding': coding } = headers;
  if (host === undefined) {
    if (httpVersion === '1.1') return faultOfHeader('Host', 'is required');
  } else {
    if (countOf(request, 'host') > 1) return faultOfHeader('Host', 'is sent more than once');
    if (!AUTHORITY.test(host)) return faultOfHeader('Host', 'must be a host, with or without a port');
  }
  if (coding === undefined) return undefined;
  if (httpVersion === '1.0') return faultOfHeader('Transfer-Encoding', 'needs HTTP/1.1');
  if (coding.toLowerCase() !== 'chunked')
    return faultOfHeader('Transfer-Encoding', 'must be chunked, and nothing else');
  return undefined;
}

/**
 * How often a header was sent: for some, Node keeps the first, while a proxy may have used the
 * last.
 */
export function countOf({ rawHeaders }: IncomingMessage, name: string): number {
  let count = 0;
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const sent = rawHeaders[index] as string;
    if (sent.length === name.length && sent.toLowerCase() === name) count += 1;
  }
  return count;
}

function faultOfHeader(name: string, what: string): ProblemDetails {
  return { errors: [{ where: `header ${name}`, what }] };
}
