// docs/api.md shows what the service really answers: its examples, sent one after the other to a
// new system.
import { readFile } from 'node:fs/promises';
import { afterAll, expect, it } from 'vitest';
import {
  cleanUp,
  createApiKey,
  createBroker,
  createDatabase,
  send,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';
import { deliver } from '../support/http-client.ts';

afterAll(cleanUp);

const TIME = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/g;
/** Of times, among others. */
const HASH = /(?<="hash":")[0-9a-f]{64}/g;
/** In event ids, in base 36, and as a member of its own. */
const EPOCH = /(?<=(?:alice|bob|shop):\d+:)[0-9a-z]{8}|(?<="(?:epoch|previousEpoch)":)\d{13}/g;
/** In event ids of the docs. */
const EXAMPLE_EPOCH = 'mwtowow0';
const comparable = (body: string) => body.replace(TIME, 'a time').replace(HASH, 'a hash').replace(EPOCH, 'an epoch');

interface HttpBlock {
  start: string;
  headers: [string, string][];
  body: string;
}

function parse(block: string): HttpBlock {
  const [head = '', body = ''] = block.trim().split('\n\n');
  const [start = '', ...lines] = head.split('\n');
  return { start, headers: lines.map((line) => line.split(': ', 2) as [string, string]), body };
}

it('answers every example in docs/api.md as it is written there', async () => {
  const docs = await readFile(new URL('../../docs/api.md', import.meta.url), 'utf8');
  const blocks = [...docs.matchAll(/^```http\n(.*?)^```$/gms)].map(([, block]) => parse(block as string));
  expect(blocks.length).toBeGreaterThanOrEqual(18);

  const database = await createDatabase();
  const broker = createBroker();
  const { url } = await startApiHere(database, broker, { AUTH: 'required' });
  await startWorkerHere(database, broker);
  const { token, headers: key } = await createApiKey(database, 'shop');
  let epoch = EXAMPLE_EPOCH; // until an answer has that of this database
  while (blocks.length > 0) {
    const [request, answer] = blocks.splice(0, 2) as [HttpBlock, HttpBlock];
    const [method = '', path = ''] = request.start.split(' ');
    if (path.includes('/entries')) {
      await until('the ledger has caught up', async () => {
        const { body } = await send(url, 'GET', path, undefined, key);
        return body.ledgerVersion === body.version;
      });
    }
    if (path.includes('/chain-')) {
      await until(
        'the chain has caught up',
        async () => (await send(url, 'GET', '/v1/accounts/alice/chain-head', undefined, key)).body.version === 2,
      );
    }
    // Where they show no key, the examples leave it out.
    const keyHeader: [string, string][] = answer.start === 'HTTP/1.1 401' ? [] : [['Authorization', `Bearer ${token}`]];
    const real = await deliver(url, {
      method,
      path: path.replace(EXAMPLE_EPOCH, epoch),
      headers: [...request.headers, ...keyHeader],
      ...(request.body ? { body: request.body.replaceAll(EXAMPLE_EPOCH, epoch) } : {}),
    });
    epoch = real.body?.eventId?.split(':')[2] ?? epoch;
    expect(`HTTP/1.1 ${real.status}`, request.start).toBe(answer.start);
    for (const [name, value] of answer.headers) expect(real.headers.get(name), name).toBe(value);
    for (const name of ['location', 'idempotent-replayed', 'retry-after', 'allow', 'www-authenticate']) {
      expect(answer.headers.some(([shown]) => shown.toLowerCase() === name)).toBe(real.headers.has(name));
    }
    expect(comparable(JSON.stringify(real.body))).toBe(comparable(answer.body));
  }
});
