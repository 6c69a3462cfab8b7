// sqlmap: SQL injection in every parameter of every call of the document, in the paths, the query,
// the bodies and the headers.
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Call } from '../support/openapi/document.ts';
import type { Finding } from './findings.ts';
import { run } from './programs.ts';

const OPTIONS = [
  ...['--ignore-stdin', '--batch', '--level', '3', '--risk', '2', '--dbms', 'PostgreSQL', '--ignore-code', '*'],
  ...['--disable-coloring', '--flush-session', '--timeout', '10', '--retries', '0'],
];
/** Of one request. A place takes seconds. */
const LIMIT_MS = 900_000;
const CLEAN = 'all tested parameters do not appear to be injectable';

export interface Raw {
  name: string;
  /** As HTTP, where sqlmap writes its own at each star. */
  text: string;
}

/** Values that lead as far as the database, where the document has no example. */
export interface Samples {
  transferId: string;
  eventId: string;
}

/** @param headers of each, as they are. One request for each example of a body; else one for what the path needs, and one for each other parameter. */
export function requestsOf(call: Call, samples: Samples, host: string, headers: string[]): Raw[] {
  const { method, operation, parameters } = call;
  const { operationId, requestBody } = operation;
  const { needed, optional } = namesOf(call);
  const write = (what: string, stars: string[], more: string[], body: string): Raw => {
    const lines = [
      `${method.toUpperCase()} ${targetOf(call, samples, stars)} HTTP/1.1`,
      `Host: ${host}`,
      ...headers,
      ...more,
    ];
    return { name: `${operationId} ${what}`.trim(), text: `${lines.join('\r\n')}\r\n\r\n${body}` };
  };
  const type = 'Content-Type: application/json';
  const keyed = parameters.some(({ name }) => name === 'Idempotency-Key') ? ['Idempotency-Key: "order-1001*"'] : [];
  const examples = Object.entries(requestBody?.content['application/json'].examples ?? {});
  const bodies = examples.map(([example, { value }]) => {
    const body = JSON.stringify(value).replaceAll(/"of":"[^"]*"/g, `"of":"${samples.eventId}"`);
    // Where each item has a key of its own, the header is refused.
    const more = body.includes('idempotencyKey') ? [type] : [type, ...keyed];
    return write(example, needed, more, starred(JSON.parse(body)));
  });
  if (bodies.length > 0) return bodies;
  const each = optional.map((name) => write(name, [name], [], ''));
  return needed.length > 0 ? [write('', needed, [], ''), ...each] : each;
}

/** Of every call, so once for all. @param key as a header, where one is asked for. */
export function requestOfHeaders(host: string, key: string): Raw {
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  const all = [
    'X-Request-Id: r1',
    `traceparent: ${traceparent}`,
    'User-Agent: a',
    'Cookie: a=b',
    'X-Forwarded-For: 127.0.0.1',
  ];
  const lines = [...all, ...(key ? [key] : [])].map((header) => `${header}*`);
  return { name: 'headers', text: ['GET /v1/accounts/alice HTTP/1.1', `Host: ${host}`, ...lines, '', ''].join('\r\n') };
}

/**
 * Of the parameters in the path and the query: those that a call cannot do without, and the others.
 */
export function namesOf({ parameters }: Call): { needed: string[]; optional: string[] } {
  const inTarget = parameters.filter(({ in: where }) => where !== 'header');
  const [needed = [], optional = []] = [true, false].map((isNeeded) =>
    inTarget.filter(({ required }) => Boolean(required) === isNeeded).map(({ name }) => name),
  );
  return { needed, optional };
}

/** By name, as the document's examples are not for all. */
const SAMPLES: Record<string, string> = {
  ...{ id: 'alice', holdId: 'checkout-1001', status: 'active', cursor: '1', prefix: 'a', reference: 'order 1001' },
  ...{ direction: 'credit', type: 'balance.credited', format: 'csv', limit: '10', version: '1' },
  ...{ from: '2026-01-01T00:00:00Z', to: '2100-01-01T00:00:00Z', at: '2026-01-01T00:00:00Z' },
};

/**
 * The path and the query of a call, with what it needs and those of the others that have a star.
 */
export function targetOf(call: Call, { transferId }: Samples, stars: string[], star = '*'): string {
  const values: Record<string, string> = { ...SAMPLES, transferId };
  if (call.operation.operationId === 'readTransfer') values.id = transferId;
  const value = (name: string) => encodeURIComponent(values[name] ?? '1') + (stars.includes(name) ? star : '');
  const ofQuery = call.parameters.filter(
    ({ in: where, name, required }) => where === 'query' && (required || stars.includes(name)),
  );
  const query = ofQuery.map(({ name }) => `${name}=${value(name)}`).join('&');
  return call.path.replace(/\{(\w+)\}/g, (_, name) => value(name)) + (query && `?${query}`);
}

/** As JSON with a star at the end of each value. */
function starred(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(starred).join(',')}]`;
  if (typeof value === 'object' && value !== null)
    return `{${Object.entries(value)
      .map(([name, one]) => `${JSON.stringify(name)}:${starred(one)}`)
      .join(',')}}`;
  return typeof value === 'string' ? `${JSON.stringify(value).slice(0, -1)}*"` : `${value}*`;
}

export async function inject({ name, text }: Raw, folder: string): Promise<Finding[]> {
  const file = path.join(folder, 'request.txt');
  writeFileSync(file, text);
  const { output, isComplete } = await run(
    'sqlmap',
    ['-r', file, ...OPTIONS, '--output-dir', folder],
    folder,
    LIMIT_MS,
  );
  if (!isComplete) return [{ level: 'low', what: `${name}: sqlmap did not end in ${LIMIT_MS / 1000} s` }];
  if (output.includes(CLEAN)) return [];
  const found = /sqlmap identified the following injection point[\s\S]*?---([\s\S]*?)---/.exec(output)?.[1];
  if (found) return [{ level: 'high', what: `${name}: ${found.trim()}` }];
  return [{ level: 'low', what: `${name}: sqlmap came to no verdict: ${output.trim().slice(-600)}` }];
}
