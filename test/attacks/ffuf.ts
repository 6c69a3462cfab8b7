// ffuf: paths, methods, parameters, headers and values by the thousand. What it tells apart from
// the usual refusal is listed; whether each answer was right, the tap judges.
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Finding } from './findings.ts';
import { run } from './programs.ts';

const LISTS = '/usr/share/dirb/wordlists';
const LIMIT_MS = 900_000;
const THREADS = '4';

const METHODS = [
  ...['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'TRACK', 'CONNECT', 'DEBUG', 'PROPFIND'],
  ...[
    'PROPPATCH',
    'MKCOL',
    'COPY',
    'MOVE',
    'LOCK',
    'UNLOCK',
    'SEARCH',
    'REPORT',
    'MERGE',
    'PURGE',
    'LINK',
    'UNLINK',
    'BIND',
  ],
  ...['QUERY', 'SUBSCRIBE', 'NOTIFY', 'SOURCE', 'ACL', 'CHECKOUT', 'get', 'Post', 'FOO', 'A'.repeat(300)],
];
/** By which proxies and frameworks let others in, or answer for another path, host or method. */
const HEADERS = [
  ...[
    'X-Forwarded-For',
    'X-Forwarded-Host',
    'X-Forwarded-Proto',
    'X-Forwarded-Port',
    'X-Forwarded-Prefix',
    'X-Real-IP',
  ],
  ...[
    'X-Original-URL',
    'X-Rewrite-URL',
    'X-HTTP-Method-Override',
    'X-HTTP-Method',
    'X-Method-Override',
    'Forwarded',
    'Via',
  ],
  ...['X-Custom-IP-Authorization', 'X-Originating-IP', 'X-Remote-IP', 'X-Remote-Addr', 'X-Client-IP', 'True-Client-IP'],
  ...[
    'CF-Connecting-IP',
    'X-Cluster-Client-IP',
    'X-Host',
    'X-Forwarded-Server',
    'X-ProxyUser-Ip',
    'Client-IP',
    'Cookie',
  ],
  ...[
    'X-Api-Key',
    'X-Auth-Token',
    'X-Access-Token',
    'X-User',
    'X-Remote-User',
    'Proxy-Authorization',
    'Authentication',
  ],
  ...[
    'Range',
    'If-Range',
    'If-Match',
    'If-None-Match',
    'If-Modified-Since',
    'Expect',
    'TE',
    'Trailer',
    'Upgrade',
    'Origin',
  ],
  ...['Content-Encoding', 'Content-Type', 'Content-Length', 'Transfer-Encoding', 'Sec-Fetch-Site', 'Sec-WebSocket-Key'],
  ...['Accept', 'Accept-Encoding', 'Accept-Language', 'Connection', 'Keep-Alive', 'Max-Forwards', 'Pragma', 'Referer'],
];

export interface Fuzz {
  what: string;
  words: () => readonly string[];
  /** With FUZZ where the words go. @param key what carries one; nothing where none is asked for. */
  args: (url: string, key: string[]) => string[];
  /** Statuses that are no news. */
  usual: string;
  /** Words that find what is meant to be there. */
  there?: readonly string[];
  /** Only where keys are asked for. */
  isOfKeys?: boolean;
}

const list = (...names: string[]) =>
  names.flatMap((name) => readFileSync(path.join(LISTS, name), 'latin1').split(/\r?\n/));
/** In a path or a query as ffuf sends it, so without what would end that. */
const words = (...names: string[]) =>
  [...new Set(list(...names))].filter((word) => /^[!-~]+$/.test(word) && !/[#?]/.test(word));

const common = () => words('common.txt');
const values = () => {
  const hostile = words('stress/uri_hex.txt', 'stress/doble_uri_hex.txt', 'vulns/apache.txt', 'vulns/cgis.txt');
  return [...hostile, ...words('stress/unicode.txt').filter((_, index) => index % 64 === 0)];
};
const update = (url: string, body: string) => {
  const head = ['-H', 'Content-Type: application/json', '-X', 'POST', '-u', `${url}/v1/balance-updates`];
  return [...head, '-d', `{"accountId":"bob","amount":1${body}}`];
};
/** What is fuzzed in a path or a query. */
const at = (target: string) => (url: string, key: string[]) => [...key, '-u', url + target];
const openly = (target: string) => (url: string) => ['-u', url + target];

const PAGES = ['livez', 'readyz', 'metrics', 'docs', 'console', 'openapi.json', 'asyncapi.json'];

export const FUZZES: readonly Fuzz[] = [
  {
    what: 'paths without a key',
    words: () => words('big.txt'),
    args: openly('/FUZZ'),
    usual: '401',
    there: PAGES,
    isOfKeys: true,
  },
  { what: 'paths', words: common, args: at('/FUZZ'), usual: '404', there: PAGES },
  { what: 'paths below /v1', words: common, args: at('/v1/FUZZ'), usual: '400,404,405', there: ['accounts'] },
  {
    what: 'paths of an account',
    words: common,
    args: at('/v1/accounts/alice/FUZZ'),
    usual: '404',
    there: ['balance', 'entries', 'holds'],
  },
  { what: 'files of the pages', words: values, args: openly('/docs/FUZZ'), usual: '404' },
  ...Object.entries({
    '/v1/balance-updates': ['POST'],
    '/v1/accounts/alice': ['GET', 'HEAD', 'PATCH'],
    '/docs': ['GET', 'HEAD'],
    '/livez': ['GET', 'HEAD'],
    '/': ['GET', 'HEAD'],
  }).map(([target, there]) => ({
    what: `methods of ${target}`,
    words: () => METHODS,
    args: (url: string, key: string[]) => [...key, '-X', 'FUZZ', '-u', url + target],
    usual: '400,404,405',
    there,
  })),
  {
    what: 'names in a query',
    words: common,
    args: at('/v1/accounts?FUZZ=1'),
    usual: '400',
    there: ['limit', 'prefix', 'cursor'],
  },
  { what: 'ids', words: values, args: at('/v1/accounts/FUZZ'), usual: '400,404' },
  { what: 'values in a query', words: values, args: at('/v1/accounts/bob/entries?reference=FUZZ'), usual: '200,400' },
  {
    what: 'names in a body',
    words: common,
    args: (url, key) => [...key, ...update(url, ',"FUZZ":1')],
    usual: '400',
  },
  {
    what: 'values in a body',
    words: values,
    args: (url, key) => [...key, ...update(url, ',"reference":"FUZZ"')],
    usual: '200,400',
  },
  {
    what: 'idempotency keys',
    words: values,
    args: (url, key) => [...key, '-H', 'Idempotency-Key: FUZZ', ...update(url, '')],
    usual: '200,400',
  },
  {
    what: 'headers without a key',
    words: () => HEADERS,
    args: (url) => ['-H', 'FUZZ: 127.0.0.1', '-u', `${url}/v1/accounts/alice`],
    usual: '400,401',
    isOfKeys: true,
  },
  {
    what: 'keys',
    words: values,
    args: (url) => ['-H', 'Authorization: Bearer FUZZ', '-u', `${url}/v1/accounts/alice`],
    usual: '401',
    isOfKeys: true,
  },
  {
    what: 'headers',
    words: () => HEADERS,
    args: (url, key) => [...key, '-H', 'FUZZ: 127.0.0.1', '-u', `${url}/v1/accounts/alice`],
    usual: '200,400,403',
  },
  {
    what: 'request ids',
    words: values,
    args: (url, key) => [...key, '-H', 'X-Request-Id: FUZZ', '-u', `${url}/v1/accounts/alice`],
    usual: '200,400',
  },
];

export async function fuzz(
  { words, args, usual, there = [] }: Fuzz,
  url: string,
  key: string[],
  folder: string,
): Promise<Finding[]> {
  const file = path.join(folder, 'words.txt');
  writeFileSync(file, words().join('\n'));
  const options = ['-s', '-t', THREADS, '-mc', 'all', '-fc', usual, '-of', 'json', '-o', 'found.json', '-w', file];
  const { output, isComplete } = await run('ffuf', [...options, ...args(url, key)], folder, LIMIT_MS);
  if (!isComplete) return [{ level: 'low', what: `ffuf did not end in ${LIMIT_MS / 1000} s` }];
  if (/error/i.test(output)) return [{ level: 'low', what: `ffuf: ${output.trim().slice(-500)}` }];
  const { results } = JSON.parse(readFileSync(path.join(folder, 'found.json'), 'utf8')) as {
    results: { input: { FUZZ: string }; status: number }[];
  };
  return results.map(({ input, status }) => ({
    level: there.includes(input.FUZZ) ? ('information' as const) : ('low' as const),
    what: `${input.FUZZ.slice(0, 60)}: ${status}`,
  }));
}
