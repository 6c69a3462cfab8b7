// The client reads what proves a history and what exports it, from the real service: a file is
// whole, or fails.
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { type Client, type ClientOptions, createClient } from '../../src/client/client.ts';
import { startProxy } from '../chaos/proxy.ts';
import {
  cleanUp,
  createBroker,
  createDatabase,
  drained,
  insertAccounts,
  onCleanUp,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';

let url: string;
let client: Client;

beforeAll(async () => {
  const database = await createDatabase();
  const broker = createBroker();
  ({ url } = await startApiHere(database, broker));
  await startWorkerHere(database, broker);
  client = createClient({ url });
  await insertAccounts(database, 'long', 'other');
  for (const amount of [1, 2, 3]) {
    await client.updateBalances(Array.from({ length: 1000 }, () => ({ accountId: 'long', amount })));
  }
  await client.updateBalance({ accountId: 'long', amount: -4, reference: 'order, 17' });
  await drained(database);
  await until('all of it is hashed', async () => (await client.readChainHead('long')).version === 3001);
});
afterAll(cleanUp);

/** A client of a server that answers as told, and the headers of the requests that it got. */
async function clientOf(answer: (count: number) => string, options: Partial<ClientOptions> = {}) {
  const requests: IncomingHttpHeaders[] = [];
  const server = createServer((request, response) => {
    requests.push(request.headers);
    const raw = answer(requests.length);
    response.socket?.write(raw);
    if (!raw.includes('chunked')) response.socket?.end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onCleanUp(async () => {
    server.closeAllConnections();
    server.close();
  });
  const client = createClient({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, ...options });
  return { client, requests };
}

const CSV_HEAD =
  'HTTP/1.1 200 OK\r\ncontent-type: text/csv; charset=utf-8; header=present\r\ntransfer-encoding: chunked\r\n\r\n';
const ACCOUNT = 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{"id":"a"}';

it('proves a history: its head, its hashes, and what the service says of it', async () => {
  const head = await client.readChainHead('long');
  expect(head).toEqual({
    accountId: 'long',
    version: 3001,
    epoch: expect.any(Number),
    hash: expect.stringMatching(/^[0-9a-f]{64}$/),
  });
  const { segments, nextCursor } = await client.readChainSegments('long', { limit: 1 });
  expect(segments).toEqual([{ firstVersion: 0, lastVersion: expect.any(Number), hash: expect.any(String) }]);
  expect(nextCursor).toBe(String(segments[0]?.lastVersion));
  const all = [];
  for await (const segment of client.chainSegments('long')) all.push(segment);
  expect(all[0]).toEqual(segments[0]);
  expect(all.at(-1)).toMatchObject({ lastVersion: 3001, hash: head.hash });
  expect(await client.verifyAccount('long')).toEqual({
    ...{ accountId: 'long', verified: true, problems: [], version: 3001 },
    ...{ ledgerEntries: 3002, pendingChanges: 0, unchainedEntries: 0 },
  });
  for (const call of [
    () => client.readChainHead('nobody'),
    () => client.readChainSegments('nobody'),
    () => client.verifyAccount('nobody'),
  ])
    await expect(call()).rejects.toMatchObject({ code: 'account_not_found' });
});

it('lists all accounts, or those of a prefix', async () => {
  const idsOf = async (...args: Parameters<Client['accounts']>) => {
    const ids = [];
    for await (const { id } of client.accounts(...args)) ids.push(id);
    return ids;
  };
  expect(await idsOf()).toEqual(['long', 'other']);
  expect(await idsOf({ prefix: 'lo' })).toEqual(['long']);
});

it('hands on the trace context of the caller, on every call that changes something', async () => {
  const { client, requests } = await clientOf(() => 'HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n');
  const options = { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' };
  const update = { accountId: 'a', amount: 1 };
  const calls = [
    client.createAccount({ id: 'a' }, options),
    client.updateBalance(update, options),
    client.updateBalances([update], options),
    client.updateBalances([update], { ...options, atomic: true }),
    client.transfers([{ from: 'a', to: 'b', amount: 1 }], options),
    client.placeHold('a', { holdId: 'h', amount: 1 }, options),
    client.captureHold('a', 'h', {}, options),
  ];
  expect((await Promise.allSettled(calls)).every(({ status }) => status === 'rejected')).toBe(true);
  expect(requests.map(({ traceparent }) => traceparent)).toEqual(calls.map(() => options.traceparent));
});

describe('an export', () => {
  it.each([
    ['csv', {}, 3002],
    ['jsonl', { from: new Date(0) }, 3002],
    ['csv', { direction: 'debit' }, 1],
  ] as const)('as %s of %j is what the service sends, oldest first', async (format, filter, entries) => {
    const { ledgerVersion, body } = await client.exportEntries('long', { format, ...filter });
    const file = await text(body);
    const query = new URLSearchParams({ format, ...('direction' in filter ? filter : {}) });
    expect(file).toBe(await (await fetch(`${url}/v1/accounts/long/entries/export?${query}`)).text());
    expect(file.trimEnd().split('\n')).toHaveLength(entries + (format === 'csv' ? 1 : 0));
    expect(ledgerVersion).toBe(3001);
  });

  it('that is refused says why, and one that is no file is not taken for one', async () => {
    const refused = client.exportEntries('nobody', { format: 'csv' });
    await expect(refused).rejects.toMatchObject({ code: 'account_not_found', status: 404 });
    const wrong = client.exportEntries('long', { format: 'xlsx' as never });
    await expect(wrong).rejects.toMatchObject({ errors: [{ where: 'query format' }] });
    const page = await clientOf(() => 'HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>');
    const none = page.client.exportEntries('long', { format: 'csv' }, { deadlineMs: 300 });
    await expect(none).rejects.toMatchObject({ code: 'unexpected_answer' });
  });

  it('is asked for again until it begins, and fails where it then breaks off', async () => {
    let count = 0;
    const proxy = await startProxy({ port: Number(new URL(url).port) }, (connection) => {
      count += 1;
      let bytes = 0;
      connection.watch('toClient', (chunk) => {
        bytes += chunk.length;
        if (count > 1 && bytes < 200_000) return false;
        connection.cut();
        return true;
      });
    });
    onCleanUp(() => proxy.close());
    const through = createClient({ url: `http://127.0.0.1:${proxy.port}` });
    const { body } = await through.exportEntries('long', { format: 'jsonl' });
    expect(count).toBe(2);
    await expect(text(body)).rejects.toMatchObject({
      code: 'unreachable',
      message: expect.stringContaining('broke off'),
    });
  });

  it('fails where nothing comes any more, and when it is aborted', async () => {
    const silent = await clientOf(() => `${CSV_HEAD}5\r\nhello\r\n`, { attemptTimeoutMs: 200 });
    const { body } = await silent.client.exportEntries('a', { format: 'csv' });
    await expect(text(body)).rejects.toMatchObject({
      code: 'unreachable',
      cause: { message: 'nothing came for 200 ms' },
    });
    const abort = new AbortController();
    const other = await silent.client.exportEntries('a', { format: 'csv' }, { signal: abort.signal });
    const reading = text(other.body);
    abort.abort('enough');
    await expect(reading).rejects.toMatchObject({ code: 'aborted', cause: 'enough' });
  });

  it('occupies a connection until it was read, destroyed, or left alone for a minute', async () => {
    const { client } = await clientOf((count) => (count % 2 === 1 ? `${CSV_HEAD}5\r\nhello\r\n` : ACCOUNT), {
      connectionsMax: 1,
    });
    const { body } = await client.exportEntries('a', { format: 'csv' });
    const waiting = client.readAccount('a');
    expect(await Promise.race([waiting, delay(50, 'waits')])).toBe('waits');
    body.destroy();
    expect(await waiting).toEqual({ id: 'a' });

    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const forgotten = await client.exportEntries('a', { format: 'csv' });
      await vi.advanceTimersByTimeAsync(60_000);
      expect(forgotten.body.destroyed).toBe(true);
      expect(await client.readAccount('a')).toEqual({ id: 'a' });
      await expect(text(forgotten.body)).rejects.toThrow(/premature|destroyed/i);
    } finally {
      vi.useRealTimers();
    }
    const whole = createClient({ url, connectionsMax: 1 });
    await text((await whole.exportEntries('long', { format: 'csv' })).body);
    expect(await whole.readAccount('long')).toMatchObject({ version: 3001 });
  });
});
