// How many single operations of a client are worked on while others send some, with a real server
// whose handler is held.
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Request, Response } from 'express';
import { afterEach, describe, expect, it } from 'vitest';
import { createCrowd } from '../../src/api/calls/crowd.ts';
import { until } from '../support/harness.ts';

let close: () => void = () => {};
afterEach(() => close());

/**
 * A server that answers nothing by itself: `answer` does, so many of a client's requests, oldest
 * first.
 */
async function startHeld() {
  const crowd = createCrowd((response) => String(response.req.headers['x-client']));
  const held = new Map<string, (() => void)[]>();
  const handler = crowd.limited((req, res) => {
    const client = String(req.headers['x-client']);
    const answered = Promise.withResolvers<void>();
    const all = held.get(client) ?? [];
    held.set(client, all);
    all.push(() => {
      res.end();
      answered.resolve();
    });
    return answered.promise;
  });
  const server = createServer((req, res) => {
    Promise.resolve(handler(req as Request, res as Response, () => {})).catch(() => res.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  close = () => {
    server.closeAllConnections();
    server.close();
  };
  const { port } = server.address() as AddressInfo;
  let received = 0;
  let left = 0;
  server.on('request', (_, response) => {
    received += 1;
    response.once('close', () => (left += 1));
  });
  return {
    async send(client: string, count: number) {
      const wanted = received + count;
      const sent = Array.from({ length: count }, () => {
        const one = request({ port, host: '127.0.0.1', headers: { 'x-client': client } }, (answer) => answer.resume());
        one.on('error', () => {});
        return one.end();
      });
      await until('all have arrived', () => received === wanted);
      return sent;
    },
    /** Requests whose answer ended, or whose client left. */
    left: () => left,
    worked: (client: string) => held.get(client)?.length ?? 0,
    answer(client: string, count: number) {
      for (const one of held.get(client)?.splice(0, count) ?? []) one();
    },
  };
}

describe('a crowd', () => {
  it('limits no client that is alone', async () => {
    const { send, worked } = await startHeld();
    await send('alone', 300);
    expect(worked('alone')).toBe(300);
  });

  it('has a client wait that has more in flight than its part, and no other', async () => {
    const { send, worked, answer } = await startHeld();
    await send('greedy', 200); // alone
    await send('other', 20);
    expect(worked('other')).toBe(20); // though none of the others was answered
    await send('greedy', 100);
    expect(worked('greedy')).toBe(200);
    answer('greedy', 190);
    await until('those that wait are worked on', () => worked('greedy') === 10 + 100 - (10 + 100 + 20 - 64));
    answer('other', 20);
    await until('it is alone again', () => worked('greedy') === 110);
  });

  it('lets clients that wait take turns', async () => {
    const { send, worked, answer } = await startHeld();
    await send('greedy', 100);
    await send('other', 32);
    await send('greedy', 100);
    await send('other', 10);
    expect([worked('greedy'), worked('other')]).toEqual([100, 32]);
    answer('other', 4);
    await until('as many of its own follow', () => worked('other') === 32);
    expect(worked('greedy')).toBe(100);
  });

  it('drops a request that waits and whose client has left', async () => {
    const { send, worked, answer, left } = await startHeld();
    await send('other', 1);
    await send('greedy', 63);
    const waiting = await send('greedy', 50);
    expect(worked('greedy')).toBe(63);
    for (const one of waiting) one.destroy();
    await until('the server knows', () => left() === 50);
    const [last] = await send('greedy', 1);
    answer('greedy', 30);
    await until('the one that is there is worked on', () => worked('greedy') === 33 + 1);
    last?.destroy();
  });
});
