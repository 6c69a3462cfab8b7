// The client has a method for each call of the OpenAPI document, by its name, which takes what the document names and refuses
// anything else with a sentence, before it sends anything.
import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { openApiDocument } from '../../src/api/reference/openapi.ts';
import { createClient } from '../../src/client/client.ts';
import { subscribe } from '../../src/client/events.ts';

interface Schema {
  $ref?: string;
  properties?: Record<string, Schema>;
  items?: Schema;
}
interface Operation {
  operationId: string;
  parameters?: { in: 'path' | 'query' | 'header'; name: string }[];
  requestBody?: { content: Record<string, { schema: Schema }> };
}

const document = openApiDocument('1.0.0', 'required') as { paths: Record<string, Record<string, Operation>> };
const operations = Object.values(document.paths).flatMap((methods) => Object.values(methods));

/** A port where nothing listens: what was sent would fail in another way. */
const client = createClient({ url: 'http://127.0.0.1:1', deadlineMs: 1 });
type Method = (...args: unknown[]) => unknown;
const methods = client as unknown as Record<string, Method>;

/** Of lists as items. */
const ITERATORS = ['accounts', 'chainSegments', 'entries', 'holds'];
/** Fields of a body that are an argument or an option of their own. */
const APART: Record<string, string[]> = { reverse: ['of'], updateBalances: ['atomic'] };
/** Of the transport: without it the service names the request itself. */
const LEFT_TO_THE_SERVICE = 'X-Request-Id';
const OPTIONS: Record<string, string> = { 'Idempotency-Key': 'idempotencyKey', traceparent: 'traceparent' };

function resolved(schema: Schema): Schema {
  if (schema.$ref === undefined) return schema;
  const path = schema.$ref.split('/').slice(1);
  return resolved(path.reduce<unknown>((value, name) => (value as Record<string, unknown>)[name], document) as Schema);
}

/** What the method takes besides options: one object, a list of them, or nothing. */
function inputOf({ operationId, parameters = [], requestBody }: Operation) {
  const query = parameters.filter((one) => one.in === 'query').map(({ name }) => name);
  if (!requestBody) return query.length > 0 ? { names: query, isList: false } : undefined;
  const { properties = {} } = resolved(requestBody.content['application/json']!.schema);
  const lists = Object.values(properties).filter(({ items }) => items);
  const [list] = lists;
  const isList = lists.length === 1 && ['updates', 'transfers'].some((name) => name in properties);
  const names = Object.keys(isList ? resolved(list!.items!).properties! : properties);
  return { names: names.filter((name) => !APART[operationId]?.includes(name)), isList };
}

function optionsOf({ operationId, parameters = [] }: Operation): string[] {
  const headers = parameters
    .filter((one) => one.in === 'header' && one.name !== LEFT_TO_THE_SERVICE)
    .map(({ name }) => OPTIONS[name] ?? name);
  return ['signal', 'deadlineMs', ...headers, ...(operationId === 'updateBalances' ? ['atomic'] : [])];
}

/** The sentence with which arguments are refused. */
async function refusal(name: string, args: unknown[], method = methods[name]): Promise<string> {
  try {
    await method?.(...args);
  } catch (error) {
    expect(error).toBeInstanceOf(TypeError);
    return (error as Error).message;
  }
  return expect.unreachable(`${name} took ${JSON.stringify(args)}`);
}

const known = (message: string) => /Known names: ([\w, ]+)\./.exec(message)?.[1]?.split(', ').sort();

it('has a method for each call, and for each list the items of its pages', () => {
  const names = operations.map(({ operationId }) => operationId);
  expect(names.length).toBeGreaterThan(20);
  expect(Object.keys(client).sort()).toEqual([...names, ...ITERATORS].sort());
});

it.each(operations)('$operationId takes what the document names, and says so of anything else', async (operation) => {
  const { operationId, parameters = [] } = operation;
  const path = parameters.filter((one) => one.in === 'path').map(() => 'a');
  if (operationId === 'reverse') path.push('a:1:1');
  const input = inputOf(operation);
  if (input) {
    const wrong = { unheardOf: 1 };
    const message = await refusal(operationId, [...path, input.isList ? [wrong] : wrong]);
    expect(message).toMatch(
      new RegExp(`^${operationId}\\(\\): \\w+(\\[0\\])?\\.unheardOf is unknown\\. Known names: `),
    );
    expect(known(message)).toEqual(input.names.sort());
  }
  const right = input ? [input.isList ? [{}] : {}] : [];
  const message = await refusal(operationId, [...path, ...right, { unheardOf: 1 }]);
  expect(message).toContain('options.unheardOf is unknown');
  expect(known(message)).toEqual(optionsOf(operation).sort());
});

it.each([
  ['accounts', [], ['prefix']],
  ['entries', ['a'], ['direction', 'from', 'holdId', 'reference', 'to', 'transferId', 'type']],
  ['holds', ['a'], ['status']],
])('%s takes the filter before the options', async (name, path, names) => {
  expect(known(await refusal(name, [...path, { limit: 1 }]))).toEqual(names);
  expect(known(await refusal(name, [...path, {}, { limit: 1 }]))).toEqual(['deadlineMs', 'signal']);
});

it.each<[string, unknown[], string]>([
  [
    'entries',
    ['a', { deadlineMs: 5 }],
    'entries(): filter.deadlineMs is unknown. Known names: from, to, direction, type, reference, transferId, holdId. It belongs in options, another argument.',
  ],
  [
    'entries',
    ['a', {}, { direction: 'debit' }],
    'entries(): options.direction is unknown. Known names: signal, deadlineMs. It belongs in filter, another argument.',
  ],
  [
    'updateBalance',
    [{ accountId: 'a', amount: 1, idempotencyKey: 'k' }],
    'updateBalance(): update.idempotencyKey is unknown. Known names: accountId, amount, expectedVersion, upTo, reference, metadata. It belongs in options, another argument.',
  ],
  [
    'transfer',
    [
      {
        legs: [
          { accountId: 'a', amount: 1 },
          { accountId: 'b', amont: -1 },
        ],
      },
    ],
    'transfer(): transfer.legs[1].amont is unknown. Known names: accountId, amount.',
  ],
  [
    'transfers',
    [[{ legs: [{ account: 'a' }] }]],
    'transfers(): transfers[0].legs[0].account is unknown. Known names: accountId, amount.',
  ],
  [
    'updateBalances',
    [[], { idempotencyKey: 'k' }],
    'updateBalances(): options.idempotencyKey is for atomic updates. Give each update its own idempotencyKey.',
  ],
  [
    'readAccount',
    ['a', { toString: 1 }],
    'readAccount(): options.toString is unknown. Known names: signal, deadlineMs.',
  ],
  ['readAccount', ['a', null], 'readAccount(): options must be an object'],
  ['transfer', [{ legs: 'a' }], 'transfer(): transfer.legs must be an array'],
  ['updateBalances', [{ accountId: 'a', amount: 1 }], 'updateBalances(): updates must be an array'],
  ['listHolds', ['a', []], 'listHolds(): page must be an object'],
  ['transfer', [{}, { traceparent: 'two words' }], 'traceparent must be printable ASCII without spaces'],
  ['createAccount', [{ id: 'a' }, { traceparent: 'two words' }], 'traceparent must be printable ASCII without spaces'],
])('%s of %j says what is wrong', async (name, args, message) => {
  expect(await refusal(name, args)).toBe(message);
});

it('createClient and subscribe name the unknown option and the known ones', () => {
  const url = 'http://localhost';
  expect(() => createClient({ url, timeoutMs: 1 } as never)).toThrow(
    'createClient(): options.timeoutMs is unknown. Known names: url, token, deadlineMs, attemptTimeoutMs, connectionsMax.',
  );
  expect(() => createClient(undefined as never)).toThrow('createClient(): options must be an object');
  const options = { url: 'amqp://localhost', client, handle() {}, onGap: () => 'wait', onRewind() {} };
  expect(() => subscribe({ ...options, exchange: 'balance.events' } as never)).toThrow(
    'subscribe(): options.exchange is unknown. Known names: url, namespace, queue, declareQueue, client, lastHandled, handle, onGap, onRewind, onProblem, concurrency, prefetch, gapTimeoutMs, signal.',
  );
  expect(() => subscribe({ ...options, onGap: undefined } as never)).toThrow('onGap must be a function');
});

it('is in docs/client.md, with each option', async () => {
  const page = await readFile(new URL('../../docs/client.md', import.meta.url), 'utf8');
  const named = (...names: string[]) => names.filter((name) => !new RegExp(`\`${name}\\b`).test(page));
  expect(named(...Object.keys(client))).toEqual([]);
  for (const made of [createClient, subscribe] as Method[]) {
    expect(named(...(known(await refusal(made.name, [{ unheardOf: 1 }], made)) as string[]))).toEqual([]);
  }
  expect(named('idempotencyKey', 'traceparent', 'deadlineMs', 'signal', 'atomic')).toEqual([]);
});
