// slowhttptest: clients that are slow on purpose, hundreds at a time. Each is closed in time, and
// the service answers others.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { Finding } from './findings.ts';
import { run } from './programs.ts';

export const CONNECTIONS = 500;
const SECONDS = 45;
const COMMON = [
  '-c',
  String(CONNECTIONS),
  '-r',
  '100',
  '-l',
  String(SECONDS),
  '-p',
  '5',
  '-g',
  '-o',
  'slow',
  '-v',
  '1',
];

/**
 * What each mode is, and its options. `header` is one more of a request, in slowhttptest's only
 * place for it.
 */
export const MODES: Record<string, (url: string, header: string) => string[]> = {
  'slow headers': (url) => ['-H', '-i', '3', '-x', '24', '-u', `${url}/v1/accounts`],
  'slow body': (url, header) => {
    const type = header ? `application/json\r\n${header}` : 'application/json';
    return ['-B', '-i', '3', '-s', '8192', '-x', '24', '-f', type, '-u', `${url}/v1/balance-updates/bulk`];
  },
  'slow read': (url) => {
    const few = ['-w', '1', '-y', '64', '-n', '3', '-z', '16', '-k', '3'];
    return ['-X', ...few, '-u', `${url}/docs/swagger-ui-bundle.js`];
  },
  range: (url) => ['-R', '-a', '5', '-b', '3000', '-t', 'HEAD', '-u', `${url}/docs/swagger-ui-bundle.js`],
};

export async function slowly(
  mode: keyof typeof MODES,
  url: string,
  header: string,
  folder: string,
): Promise<Finding[]> {
  const options = MODES[mode]?.(url, header) ?? [];
  const { output, isComplete } = await run('slowhttptest', [...COMMON, ...options], folder, (SECONDS + 30) * 1000);
  if (!isComplete) return [{ level: 'low', what: 'slowhttptest did not end in time' }];
  if (!/Exit status/.test(output))
    return [{ level: 'low', what: `slowhttptest came to no end: ${output.slice(-500)}` }];
  // Seconds, Closed, Pending, Connected, Service Available (0 where the probe was not answered).
  const [, ...rows] = readFileSync(path.join(folder, 'slow.csv'), 'utf8').trim().split('\n');
  const unavailable = rows.filter((row) => row.split(',')[4]?.trim() === '0');
  if (unavailable.length === 0) return [];
  return [
    { level: 'high', what: `the service did not answer the probe at ${unavailable.length} of ${rows.length} moments` },
  ];
}
