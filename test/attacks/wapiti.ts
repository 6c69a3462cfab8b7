// wapiti: the pages and the reads, as a scanner of web applications sees them. Of its modules all
// that apply and ask no other machine: nikto and wapp fetch their lists, ssrf and xxe need a
// collector outside; buster does what ffuf does.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { Call } from '../support/openapi/document.ts';
import { type Finding, LEVELS } from './findings.ts';
import { run } from './programs.ts';
import { namesOf, type Samples, targetOf } from './sqlmap.ts';

const MODULES = [
  ...['backup', 'blindsql', 'brute_login_form', 'cookieflags', 'crlf', 'csp', 'csrf', 'exec', 'file', 'htaccess'],
  ...['http_headers', 'methods', 'permanentxss', 'redirect', 'shellshock', 'sql', 'xss'],
];
const LIMIT_MS = 600_000;

/** What is no fault, and why. */
export const EXCUSES: readonly { what: RegExp; reason: string }[] = [
  {
    what: /X-Frame-Options/,
    reason: 'Content-Security-Policy: frame-ancestors is its successor, and every answer has that.',
  },
  {
    what: /X-XSS-Protection/,
    reason: 'Browsers have taken out what it switched, and the policy of the answer allows no inline script.',
  },
  {
    what: /Strict-Transport-Security/,
    reason: 'TLS ends before this service, and a browser ignores the header without TLS.',
  },
];

interface Entry {
  method: string;
  path: string;
  info: string;
  level: number;
  parameter: string;
}
type ByCategory = Record<string, Entry[]>;

/** Paths of a call that reads: as it has to be asked, and once with each other parameter. */
export function readsOf(call: Call, samples: Samples): string[] {
  const { optional } = namesOf(call);
  return ['', ...optional].map((name) => targetOf(call, samples, [name], ''));
}

/** @param targets paths to begin with, with a query where they take one. */
export async function scan(
  url: string,
  targets: readonly string[],
  header: string,
  folder: string,
): Promise<Finding[]> {
  const starts = targets.flatMap((target) => ['-s', url + target]);
  const options = ['--scope', 'domain', '--flush-session', '--no-bugreport', '-m', MODULES.join(','), '-t', '10'];
  const bounds = ['--max-scan-time', '60', '--max-attack-time', '60', '--store-session', folder];
  const report = ['-f', 'json', '-o', path.join(folder, 'report.json')];
  const withHeader = header ? ['-H', header] : [];
  const args = ['-u', `${url}/`, ...starts, ...options, ...bounds, ...withHeader, ...report];
  const { output, isComplete } = await run('wapiti', args, folder, LIMIT_MS);
  if (!isComplete) return [{ level: 'low', what: `wapiti did not end in ${LIMIT_MS / 1000} s: ${output.slice(-300)}` }];
  const said = JSON.parse(readFileSync(path.join(folder, 'report.json'), 'utf8')) as Record<string, ByCategory>;
  return ['vulnerabilities', 'anomalies', 'additionals'].flatMap((kind) =>
    Object.entries(said[kind] ?? {}).flatMap(([category, entries]) =>
      entries.map(({ method, path: where, info, level, parameter }): Finding => {
        const what = `${category}: ${method} ${where} ${parameter ?? ''} ${info}`.slice(0, 300);
        const isExcused = kind === 'additionals' || EXCUSES.some((excuse) => excuse.what.test(info));
        return { level: isExcused ? 'information' : (LEVELS[level] ?? 'high'), what };
      }),
    ),
  );
}
