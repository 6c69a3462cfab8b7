import type { ChannelModel } from 'amqplib';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type BrokerSession, BrokerTimeout, closeConnection, connect } from '../../src/shared/broker.ts';
import { askOnce, openChannel } from '../../src/shared/channel.ts';
import { startProxy } from '../chaos/proxy.ts';
import { cleanUp, createBroker, onCleanUp, until } from '../support/harness.ts';

let connection: ChannelModel;
let ended: Error[];
const session = (): BrokerSession => ({
  connection,
  signal: new AbortController().signal,
  end: (reason) => ended.push(reason),
});

beforeEach(async () => {
  ended = [];
  connection = await connect(createBroker().url, 'test');
  onCleanUp(() => closeConnection(connection));
});
afterEach(cleanUp);

it('ends the session with what ended its channel, and says it first', async () => {
  const channel = await openChannel(connection.createChannel(), session());
  await expect(channel.checkQueue('none.of.this.name')).rejects.toMatchObject({ code: 404 });
  await until('both are reported', () => ended.length > 1);
  expect(ended[0]?.message).toMatch(/NOT.FOUND/);
  expect(ended.at(-1)?.message).toBe('channel closed');
});

it('ends the session when its channel is closed', async () => {
  const channel = await openChannel(connection.createConfirmChannel(), session());
  await channel.close();
  await until('it is reported', () => ended.length > 0);
  expect(ended[0]?.message).toBe('channel closed');
});

it('asks once and leaves no channel; what RabbitMQ refuses fails with its reason, and the connection continues', async () => {
  for (let times = 0; times < 3; times += 1) {
    const asked = askOnce(connection, 'looking', (channel) => channel.checkQueue('none.of.this.name'));
    await expect(asked).rejects.toMatchObject({ code: 404 });
    expect(await askOnce(connection, 'looking', (channel) => channel.checkExchange('amq.topic'))).toEqual({});
  }
  const { ch: number } = (await openChannel(connection.createChannel())) as unknown as { ch: number };
  expect(number).toBe(1); // the lowest that is free
});

it('waits for a silent broker no longer than for any request', { timeout: 30_000 }, async () => {
  const proxy = await startProxy({ port: Number(new URL(createBroker().url).port) });
  onCleanUp(() => proxy.close());
  const url = new URL(createBroker().url);
  url.port = String(proxy.port);
  const stalled = await connect(url.href, 'test');
  onCleanUp(() => closeConnection(stalled));
  for (const link of proxy.connections()) link.setMode('toServer', 'hold');
  await expect(openChannel(stalled.createChannel())).rejects.toThrow(BrokerTimeout);
});
