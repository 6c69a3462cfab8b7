import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import amqp from 'amqplib';
import { afterEach, beforeEach, describe, expect, inject, it } from 'vitest';
import { probeBroker } from '../../src/local/amqp-probe.ts';
import { startDockerBroker } from '../../src/local/docker-broker.ts';
import { installRabbitmqServer } from '../../src/local/install-broker.ts';
import { findRabbitmqServer } from '../../src/local/machine-broker.ts';
import { deletePrivateBroker, startPrivateBroker } from '../../src/local/private-broker.ts';
import { isAlive } from '../../src/local/process-end.ts';
import { findBroker } from '../../src/local/rabbitmq.ts';
import type { KnownProcess } from '../../src/shared/runtime.ts';
import { needing } from '../support/needing.ts';
import { type Reaper, startReaper } from '../support/reaper.ts';

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
    ['nonsense', /^AMQP_URL must be an AMQP URL, starting with amqp:/],
    ['amqp://one:5672,two:5672', /^AMQP_URL names several hosts in one URL: give a whole URL for each/],
    [
      'amqp://127.0.0.1:1,amqp://127.0.0.1:2',
      /127\.0\.0\.1:1 .* does not answer: .*\n.*127\.0\.0\.1:2 .* does not answer/,
    ],
    ['amqp://host:99999', /^AMQP_URL is not a correct URL/],
    ['amqp://127.0.0.1:1', /does not answer: connect ECONNREFUSED/],
    ['wrong password', /refuses the connection: .*ACCESS_REFUSED/],
    ['wrong virtual host', /refuses the connection: NOT_ALLOWED/],
  ])('says in one sentence what is wrong with AMQP_URL: %s', async (what, sentence) => {
    const url = new URL(inject('amqpUrl'));
    if (what === 'wrong password') url.password = 'wrong';
    if (what === 'wrong virtual host') url.pathname = '/nowhere';
    const env = { AMQP_URL: what.startsWith('wrong') ? url.href : what };
    await expect(findBroker({ dir, env })).rejects.toThrow(sentence);
  });

  it('gives up on a server that accepts a connection and then says nothing', async () => {
    const silent = net.createServer((socket) => socket.resume());
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

needing('the package rabbitmq-server', findRabbitmqServer() !== undefined).describe('a private node', () => {
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

  it('ends and leaves nothing when its folder is deleted, or its start is interrupted', async () => {
    const broker = await start();
    await deletePrivateBroker(dir);
    expect(broker.isRunning).toBe(false);
    expect(existsSync(dir)).toBe(false);

    const interrupted = new AbortController();
    const started: KnownProcess[] = [];
    const onSpawn = (process: KnownProcess) => {
      reaper.add({ process });
      started.push(process);
      if (started.length > 1) interrupted.abort(); // the port mapper comes first
    };
    const starting = startPrivateBroker({ dir, onSpawn, interrupted: interrupted.signal });
    await expect(starting).rejects.toThrow('aborted');
    expect(started.filter(isAlive)).toEqual([]);
  });
});

needing('root', process.getuid?.() === 0).describe('the package rabbitmq-server', () => {
  /** What it says, and which commands were run by an apt-get that only notes them. */
  async function install(confirm?: (question: string, enter: 'yes' | 'no') => Promise<boolean>) {
    const calls = path.join(dir, 'calls');
    writeFileSync(calls, '');
    writeFileSync(path.join(dir, 'apt-get'), `#!/bin/sh\necho "$1" >> '${calls}'\n`, { mode: 0o755 });
    const before = process.env.PATH;
    process.env.PATH = `${dir}${path.delimiter}${before}`;
    try {
      const reason = await installRabbitmqServer({}, () => undefined, confirm);
      return { reason, calls: readFileSync(calls, 'utf8') };
    } finally {
      process.env.PATH = before;
    }
  }

  it('is installed when the person agrees, for which Enter will do, or when nobody is there', async () => {
    const asked: unknown[] = [];
    const agree = async (...question: unknown[]) => {
      asked.push(question);
      return true;
    };
    expect((await install(agree)).calls).toBe('update\ninstall\n');
    expect(asked).toEqual([[expect.stringMatching(/^There is no RabbitMQ .* with apt-get\?$/), 'yes']]);
    expect((await install()).calls).toBe('update\ninstall\n');
  });

  it('is not installed when the person declines', async () => {
    expect(await install(async () => false)).toEqual({ reason: 'you declined to install it', calls: '' });
  });
});

async function publishKept(channel: amqp.ConfirmChannel): Promise<number> {
  // A classic queue: RabbitMQ (3.10 and 4.0 alike) forgets what a quorum queue is about when it is
  // killed within seconds of declaring it, and that queue then answers nobody.
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
