// The load where wrk is not installed: autocannon, as a process of its own so that its CPU is counted apart.
// node cannon.ts URL <connections> <seconds> <file of accounts> <operation> <operations a request> <key prefix, or - for none>
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

/** So many requests after the hold, which is answered by then: 64 connections have one request each in flight. */
const CAPTURED_AFTER = 1000;

const [url = '', connections, seconds, file = '', operation, size, prefix = '-'] = process.argv.slice(2);
const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
const operations = Number(size);
let position = Math.floor(Math.random() * lines.length);
let keys = 0;
let placed = 0;
let captured = 0;

const nextKey = () => `${prefix}${++keys}`;

function nextFields(): string {
  position = (position + 1) % lines.length;
  const line = lines[position] as string;
  if (operation === 'update') return `"accountId":"${line}","amount":1`;
  const [from, to] = line.split(' ');
  return `"from":"${from}","to":"${to}","amount":1`;
}

/** All holds are of the first account, and each is captured in its turn. */
function holdOrCapture(template: Request): Request {
  const path = `/v1/accounts/${lines[0]}/holds`;
  if (placed < captured + CAPTURED_AFTER) {
    placed += 1;
    return { ...template, path, body: `{"holdId":"${prefix}${placed}","amount":1}` };
  }
  captured += 1;
  return { ...template, path: `${path}/${prefix}${captured}/capture`, body: '{}' };
}

function nextRequest(template: Request): Request {
  if (operation === 'hold') return holdOrCapture(template);
  const path = operation === 'update' ? '/v1/balance-updates' : '/v1/transfers';
  if (operations === 1) {
    const key = prefix === '-' ? {} : { 'idempotency-key': nextKey() };
    return { ...template, headers: { ...template.headers, ...key }, path, body: `{${nextFields()}}` };
  }
  const items = Array.from({ length: operations }, () => {
    const key = prefix === '-' ? '' : `,"idempotencyKey":"${nextKey()}"`;
    return `{${nextFields()}${key}}`;
  });
  const list = operation === 'update' ? 'updates' : 'transfers';
  return { ...template, path: `${path}/bulk`, body: `{"${list}":[${items.join(',')}]}` };
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
  if (status >= 300) notOk += 1;
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
