import { mkdtempSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import amqp from 'amqplib';
import { afterEach, beforeEach, describe, expect, inject, it } from 'vitest';
import { probeBroker } from '../../src/local/amqp-probe.ts';
import { startDockerBroker } from '../../src/local/docker-broker.ts';
import { findRabbitmqServer } from '../../src/local/machine-broker.ts';
import { startPrivateBroker } from '../../src/local/private-broker.ts';
import { findBroker } from '../../src/local/rabbitmq.ts';
import { type Reaper, startReaper } from '../reaper.ts';

let reaper: Reaper;
let dir: string;
beforeEach(() => {
  reaper = startReaper();
  // A blank in the path, as home folders have them.
  dir = mkdtempSync(path.join(os.tmpdir(), 'highload-balance-test- '));
  reaper.add({ folder: dir });
});
afterEach(() => reaper.close());

describe('finding a broker', () => {
  it('takes the one that AMQP_URL names, and leaves it running', async () => {
    const broker = await findBroker({ dir, env: { AMQP_URL: inject('amqpUrl') } });
    expect(broker).toMatchObject({ url: inject('amqpUrl'), shared: true });
    await broker.stop();
    expect(await probeBroker(broker.url, 5_000)).toMatchObject({ answer: 'ready' });
  });

  it.each([
    ['nonsense', /has to look like amqp:/],
    ['amqp://127.0.0.1:1', /does not answer: connect ECONNREFUSED/],
    ['wrong password', /refuses us: .*ACCESS_REFUSED/],
    ['wrong virtual host', /refuses us: NOT_ALLOWED/],
  ])('says in one sentence what is wrong with AMQP_URL: %s', async (what, sentence) => {
    const url = new URL(inject('amqpUrl'));
    if (what === 'wrong password') url.password = 'wrong';
    if (what === 'wrong virtual host') url.pathname = '/nowhere';
    const env = { AMQP_URL: what.startsWith('wrong') ? url.href : what };
    await expect(findBroker({ dir, env })).rejects.toThrow(sentence);
  });

  it('gives up on a server that accepts a connection and then says nothing', async () => {
    const silent = net.createServer(() => undefined);
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const { port } = silent.address() as net.AddressInfo;
    expect(await probeBroker(`amqp://127.0.0.1:${port}`, 200)).toMatchObject({ answer: 'unreachable' });
    silent.close();
  });

  it('says why Docker cannot give one', async () => {
    const host = process.env.DOCKER_HOST;
    process.env.DOCKER_HOST = 'unix:///nonexistent';
    try {
      const result = await startDockerBroker({ dir, port: 25_682, say: () => undefined });
      expect(result).toEqual({ unavailable: expect.stringMatching(/nonexistent|not installed/) });
    } finally {
      if (host === undefined) delete process.env.DOCKER_HOST;
      else process.env.DOCKER_HOST = host;
    }
  });
});

describe.skipIf(!findRabbitmqServer())('a private node', () => {
  const start = () => startPrivateBroker({ dir, onSpawn: (process) => reaper.add({ process }) });

  it('keeps messages over SIGKILL and adoption, loses them with its data, and keeps its port', async () => {
    const broker = await start();
    expect(await usingChannel(broker.url, (channel) => publishKept(channel))).toBe(1);
    await broker.control('eval', 'mnesia:sync_log().'); // a declaration is not on disk yet when it is answered
    await broker.kill();
    expect(broker.isRunning).toBe(false);
    await broker.start();
    const adopted = await start();
    expect(adopted).toMatchObject({ adopted: true, url: broker.url, pid: broker.pid });
    await expect.poll(() => usingChannel(broker.url, countKept), { timeout: 20_000 }).toBe(1);
    await broker.kill();
    broker.wipe();
    await broker.start();
    const queue = usingChannel(broker.url, (channel) => channel.checkQueue('kept'));
    await expect(queue).rejects.toThrow(/NOT_FOUND/);
    await broker.stop();
    await broker.stop();
    expect(await probeBroker(broker.url, 1_000)).toMatchObject({ answer: 'unreachable' });
  });
});

async function publishKept(channel: amqp.ConfirmChannel): Promise<number> {
  // A classic queue: RabbitMQ (3.10 and 4.0 alike) forgets what a quorum queue is about when it is killed within
  // seconds of declaring it, and that queue then answers nobody.
  await channel.assertQueue('kept', { durable: true });
  channel.sendToQueue('kept', Buffer.from('x'), { persistent: true });
  await channel.waitForConfirms();
  return countKept(channel);
}

async function countKept(channel: amqp.Channel): Promise<number> {
  return (await channel.checkQueue('kept')).messageCount;
}

async function usingChannel<T>(url: string, use: (channel: amqp.ConfirmChannel) => Promise<T>): Promise<T> {
  const connection = await amqp.connect(url, { timeout: 10_000 });
  connection.on('error', () => undefined);
  try {
    const channel = await connection.createConfirmChannel();
    channel.on('error', () => undefined);
    return await use(channel);
  } finally {
    await connection.close();
  }
}
