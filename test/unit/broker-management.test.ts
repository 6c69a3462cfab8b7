// A management URL that leads to something else than RabbitMQ's management is said to, in one
// sentence.
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, it } from 'vitest';
import { readQueues } from '../../src/shared/broker-management.ts';

let server: Server;
afterEach(() => server.close());

async function answering(body: string): Promise<string> {
  server = createServer((_request, response) => response.end(body)).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

it.each([
  ['<html>', 'the answer is not JSON'],
  ['{"error":"not found"}', 'must be a list'],
  ['[{"name":7}]', '0.name must be text'],
])('what answers %s is no management plugin', async (body, what) => {
  const managementUrl = await answering(body);
  await expect(readQueues({ managementUrl, amqpUrl: 'amqp://localhost' })).rejects.toThrow(
    `The server at ${managementUrl} is not RabbitMQ's management plugin, or an unknown version of it: ${what}`,
  );
});
