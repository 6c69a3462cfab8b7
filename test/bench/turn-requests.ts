// The requests that make the API work longest on one of them: the largest that are right, and what a client with a key can
// make of as many bytes. Each is answered, with this status.
import { BULK_UPDATES_MAX, LEGS_MAX } from '../../src/shared/contract.ts';
import { HOT_ACCOUNT } from './accounts.ts';

export interface TurnRequest {
  what: string;
  method: 'GET' | 'POST';
  path: string;
  body?: Buffer;
  headers?: Record<string, string>;
  status: number;
}

/** Of a bulk body, by default. */
const BYTES_MAX = 2_097_152;
const UPDATES = '/v1/balance-updates/bulk';
const TRANSFERS = '/v1/transfers/bulk';

/** As many pieces as fit between the two. */
function filled(head: string, piece: (index: number) => string, tail: string): Buffer {
  const pieces: string[] = [];
  for (let bytes = head.length + tail.length, index = 0; ; index += 1) {
    const next = piece(index);
    bytes += next.length + 1;
    if (bytes > BYTES_MAX) return Buffer.from(head + pieces.join(',') + tail);
    pieces.push(next);
  }
}

const list = <Item>(count: number, one: (index: number) => Item) =>
  Array.from({ length: count }, (_, index) => one(index));
const json = (value: object) => Buffer.from(JSON.stringify(value));

/** 16 names, and so long that a thousand of them nearly fill a body. */
const metadata = Object.fromEntries(
  Array.from({ length: 16 }, (_, index) => [`name-${index}`.padEnd(20, 'n'), 'v'.repeat(44)]),
);
const key = (run: string, index: number) => `${run}-${index}`.padEnd(255, 'k');
const update = (index: number) => ({ accountId: HOT_ACCOUNT, amount: 1, reference: `order ${index}`.padEnd(255, 'x') });

/** @param run differs from run to run, so that no key is known. */
export function turnRequests(run: string): TurnRequest[] {
  const post = (what: string, body: Buffer, status: number, path = UPDATES, headers = {}): TurnRequest => ({
    ...{ what, method: 'POST' as const, path, body, status, headers },
  });
  const unknown = (item: number) => `{${list(24, (index) => `"${item}-${index}":1`)}}`;
  const item = `{"updates":[{"accountId":"${HOT_ACCOUNT}","amount":1`;
  const keyed = list(BULK_UPDATES_MAX, (index) => ({ ...update(index), metadata, idempotencyKey: key(run, index) }));
  const noted = list(BULK_UPDATES_MAX, (index) => ({ ...update(index), metadata }));
  const named = list(BULK_UPDATES_MAX, (index) => ({
    ...update(index),
    metadata: Object.fromEntries(list(16, (name) => [`${run}-${index}-${name}`, 'v'.repeat(40)])),
  }));
  const quoted = list(BULK_UPDATES_MAX, (index) => ({
    ...update(index),
    reference: '"'.repeat(255),
    metadata: { name: '\u0001'.repeat(230) },
  }));
  const legs = [
    { accountId: HOT_ACCOUNT, amount: -1 },
    { accountId: 'a1', amount: 1 },
  ];
  const transfers = list(LEGS_MAX / 2, (index) => ({ legs, metadata, idempotencyKey: key(run, index) }));
  return [
    post(
      'bulk of unknown names',
      filled(`${item}}],`, (index) => `"n${index}":1`, '}'),
      400,
    ),
    post(
      'bulk, an item of unknown names',
      filled(`${item},`, (index) => `"n${index}":1`, '}]}'),
      400,
    ),
    post(
      'bulk, metadata of many names',
      filled(`${item},"metadata":{`, (index) => `"N${index}":1`, '}}]}'),
      400,
    ),
    post(
      'bulk, 1,000 items of unknown names',
      filled('{"updates":[', (index) => unknown(index), ']}'),
      400,
    ),
    post(
      'bulk of empty items',
      filled('{"updates":[', () => '{}', ']}'),
      400,
    ),
    post(
      'bulk of numbers',
      filled('{"updates":[', () => '1', ']}'),
      400,
    ),
    post('bulk, lists in lists', Buffer.from(`{"updates":${'['.repeat(1e6)}${']'.repeat(1e6)}}`), 400),
    post('bulk of spaces', Buffer.from(`${item}}]${' '.repeat(2e6)}}`), 200),
    post('bulk, the last item wrong', json({ updates: [...keyed.slice(1), { accountId: '' }] }), 400),
    post('bulk of 1,000 with keys and metadata', json({ updates: keyed }), 200),
    post('bulk of 1,000, each with names of its own', json({ updates: named }), 200),
    post('bulk of 1,000 whose notes need escapes', json({ updates: quoted }), 200),
    post('atomic bulk of 1,000 with metadata', json({ updates: noted, atomic: true }), 200, UPDATES, {
      'idempotency-key': run,
    }),
    post('bulk of 1,000 transfers', json({ transfers }), 200, TRANSFERS),
    ...READS,
  ];
}

const get = (what: string, path: string): TurnRequest => ({ what, method: 'GET', path, status: 200 });
const history = `/v1/accounts/${HOT_ACCOUNT}`;
const READS: readonly TurnRequest[] = [
  get('1,000 accounts', '/v1/accounts?limit=1000'),
  get('1,000 entries with metadata', `${history}/entries?limit=1000`),
  get('1,000 holds', `${history}/holds?limit=1000`),
  get('an export as CSV', `${history}/entries/export?format=csv`),
  get('an export as JSON lines', `${history}/entries/export?format=jsonl`),
  get('a verification', `${history}/verification`),
  get('the points of the console', `/console${history.slice(3)}/balances`),
  get('the OpenAPI document', '/openapi.json'),
  get('the AsyncAPI document', '/asyncapi.json'),
  get('a script of /docs', '/docs/swagger-ui-bundle.js'),
  get('the metrics', '/metrics'),
  get('readiness', '/readyz'),
];
