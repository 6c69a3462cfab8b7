// The load where wrk is not installed: autocannon, as a process of its own so that its CPU is counted apart.
// node cannon.ts URL <connections> <seconds> <file of account ids> <updates a request> <key prefix, or - for none>
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { percentile } from './numbers.ts';

interface Request {
  path: string;
  body: string;
  headers: Record<string, string>;
}

interface Instance extends Promise<{ errors: number; timeouts: number; duration: number }> {
  on(
    event: 'response',
    listener: (client: unknown, status: number, bytes: number, milliseconds: number) => void,
  ): Instance;
}

type Autocannon = (options: object) => Instance;

const [url = '', connections, seconds, file = '', size, prefix = '-'] = process.argv.slice(2);
const ids = readFileSync(file, 'utf8').trimEnd().split('\n');
const updates = Number(size);
let position = Math.floor(Math.random() * ids.length);
let keys = 0;

const nextId = () => {
  position = (position + 1) % ids.length;
  return ids[position] as string;
};
const nextKey = () => `${prefix}${++keys}`;

function nextRequest(template: Request): Request {
  if (updates === 1) {
    const key = prefix === '-' ? {} : { 'idempotency-key': nextKey() };
    const body = `{"accountId":"${nextId()}","amount":1}`;
    return { ...template, headers: { ...template.headers, ...key }, path: '/v1/balance-updates', body };
  }
  const items = Array.from({ length: updates }, () => {
    const key = prefix === '-' ? '' : `,"idempotencyKey":"${nextKey()}"`;
    return `{"accountId":"${nextId()}","amount":1${key}}`;
  });
  return { ...template, path: '/v1/balance-updates/bulk', body: `{"updates":[${items.join(',')}]}` };
}

const latencies: number[] = [];
let notOk = 0;
const autocannon = createRequire(import.meta.url)('autocannon') as Autocannon;
const running = autocannon({
  url,
  connections: Number(connections),
  duration: Number(seconds),
  requests: [{ method: 'POST', headers: { 'content-type': 'application/json' }, setupRequest: nextRequest }],
});
// Its own summary is in whole milliseconds: too coarse for a lone client.
running.on('response', (_client, status, _bytes, milliseconds) => {
  latencies.push(milliseconds);
  if (status !== 200) notOk += 1;
});
const { errors, timeouts, duration } = await running;
const result = {
  answered: latencies.length,
  notOk,
  broken: errors + timeouts,
  seconds: duration,
  p50Ms: percentile(latencies, 50),
  p99Ms: percentile(latencies, 99),
  maxMs: percentile(latencies, 100),
};
console.log(`RESULT ${JSON.stringify(result)}`);
