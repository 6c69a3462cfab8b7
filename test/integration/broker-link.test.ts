// The link to RabbitMQ against everything that ends, stalls, blocks or refuses it: nothing is lost,
// the API keeps accepting, and where only a person can help, the log says how.
import { createServer, type Server } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { Channel } from 'amqplib';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { startRelay } from '../../src/api/relay/relay.ts';
import { openDeadLetters } from '../../src/cli/dead-letter-queue.ts';
import { BrokerTimeout, closeConnection, connect, keepBrokerLink } from '../../src/shared/broker.ts';
import { readApiSettings } from '../../src/shared/config.ts';
import { createLogger } from '../../src/shared/logging.ts';
import { declareTopology } from '../../src/shared/topology.ts';
import { startProxy, type TcpProxy } from '../chaos/proxy.ts';
import { type DisposableBroker, startDisposableBroker } from '../support/backends.ts';
import {
  applyDirectly,
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  environmentOf,
  insertAccounts,
  onCleanUp,
  type Spawned,
  send,
  spawnProcess,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';

let server: DisposableBroker;
let database: Database;
let broker: Broker;

beforeAll(async () => {
  server = await startDisposableBroker();
});
afterAll(() => server.stop());

beforeEach(async () => {
  database = await createDatabase();
  broker = createBroker(server.url);
  await insertAccounts(database, 'a');
});
afterEach(cleanUp);

const problemsOf = (spawned: Spawned) =>
  spawned
    .lines()
    .filter(({ msg }) => !msg.startsWith('PostgreSQL runs with ')) // fsync off, in these tests
    .filter(({ msg }) => !msg.startsWith('AUTH is off'));
const readyz = async (url: string) => (await send(url, 'GET', '/readyz')).body;

async function openChannel(): Promise<Channel> {
  const channel = await (await broker.connect()).createChannel();
  await declareTopology(channel, broker.topology);
  return channel;
}

/** The broker through a proxy, with heartbeats that a test can wait for. */
async function proxied(): Promise<{ proxy: TcpProxy; broker: Broker }> {
  const proxy = await startProxy({ port: Number(new URL(server.url).port) });
  onCleanUp(() => proxy.close());
  const url = new URL(server.url);
  url.port = String(proxy.port);
  url.searchParams.set('heartbeat', '1');
  return { proxy, broker: { ...broker, url: url.href } };
}

function stall(proxy: TcpProxy, label?: string): void {
  for (const connection of proxy.connections(label)) {
    connection.setMode('toServer', 'hold');
    connection.setMode('toClient', 'hold');
  }
}

describe('a connection that falls silent', () => {
  it.each(['relay', 'worker'])('is noticed by the %s, which opens another', async (service) => {
    const way = await proxied();
    const { url } = await startApiHere(database, service === 'relay' ? way.broker : broker);
    await startWorkerHere(database, service === 'worker' ? way.broker : broker);
    await applyDirectly(database.pool, 'a', 1);
    await drained(database);
    stall(way.proxy, `highload-balance ${service}`);
    expect((await send(url, 'POST', '/v1/balance-updates', { accountId: 'a', amount: 1 })).status).toBe(200);
    expect(await drained(database, 15_000)).toMatchObject({ ledgerEntries: 3, offendingAccounts: 0 });
  });

  it('is closed by force, and what still waited for an answer fails', async () => {
    const way = await proxied();
    const connection = await connect(way.broker.url.replace('heartbeat=1', 'heartbeat=60'), 'test');
    const channel = await connection.createChannel();
    stall(way.proxy);
    const answer = channel.checkQueue('any').then(
      () => 'answered',
      (error: Error) => error.message,
    );
    const startedAt = performance.now();
    await closeConnection(connection);
    expect(performance.now() - startedAt).toBeLessThan(15_000);
    expect(await Promise.race([answer, delay(1000, 'still waiting')])).toMatch(/no reply will be forthcoming/);
  });
});

describe('a peer that lets nobody in', () => {
  /** Accepts connections, says what it says in drops, and never comes to an end. */
  async function startPeer(drops: Buffer): Promise<string> {
    const peer: Server = createServer((socket) => {
      let said = 0;
      const timer = setInterval(() => socket.write(drops.subarray(said, ++said)), 200);
      socket.on('error', () => {});
      socket.on('close', () => clearInterval(timer));
      socket.resume();
    });
    await new Promise<void>((resolve) => peer.listen(0, '127.0.0.1', resolve));
    onCleanUp(async () => peer.close());
    return `amqp://127.0.0.1:${(peer.address() as { port: number }).port}`;
  }

  it('is given up after 5 s, whether it is silent or answers slowly, also by a link that is to stop', async () => {
    const silent = await startPeer(Buffer.alloc(0));
    const slow = await startPeer(Buffer.from([1, 0, 0, 0, 0, 16, 0, ...Buffer.alloc(4096)])); // the head of a long frame
    const startedAt = performance.now();
    const link = keepBrokerLink({
      url: silent,
      service: 'test',
      log: createLogger('test', 'silent'),
      run: async () => {},
    });
    await Promise.all([
      expect(connect(silent, 'test')).rejects.toThrow(BrokerTimeout),
      expect(connect(slow, 'test')).rejects.toThrow(BrokerTimeout),
      link.stop(),
    ]);
    expect(performance.now() - startedAt).toBeLessThan(15_000);
  });
});

describe('a channel that RabbitMQ closes', () => {
  it('ends the sessions of relay and worker, and the next ones go on', async () => {
    const environment = environmentOf(database, broker, { LOG_LEVEL: 'warn', RELAY_REPUBLISH_MS: '60000' });
    const processes = [await spawnProcess('api', environment), await spawnProcess('worker', environment)];
    await applyDirectly(database.pool, 'a', 1);
    await drained(database);
    // As if each client had acknowledged what it never got: an error that costs the channel and not
    // the connection.
    const breach = `[rabbit_channel:do(Channel, {'basic.ack', 999999999, false}) || Channel <- rabbit_channel:list()].`;
    await server.control('eval', breach);
    for (const { output } of processes) {
      await until('it has lost its channel', () => output().includes('unknown delivery tag 999999999'));
    }
    await applyDirectly(database.pool, 'a', 1);
    expect(await drained(database)).toMatchObject({ ledgerEntries: 3, offendingAccounts: 0 });
    for (const spawned of processes) {
      expect(spawned.child.exitCode).toBeNull();
      for (const line of problemsOf(spawned)) expect(line).toMatchObject({ msg: 'RabbitMQ session ended' });
    }
  });

  it('because the exchange is gone, is no loss: the exchange is made again', async () => {
    await startApiHere(database, broker);
    await startWorkerHere(database, broker);
    await applyDirectly(database.pool, 'a', 1);
    await drained(database);
    const channel = await openChannel();
    await channel.deleteExchange(broker.topology.eventsExchange);
    await applyDirectly(database.pool, 'a', 1);
    expect(await drained(database)).toMatchObject({ ledgerEntries: 3, offendingAccounts: 0 });
    // On a channel of its own each time: the answer that there is none closes it.
    const isThere = async () => {
      const channel = await (await broker.connect()).createChannel();
      channel.on('error', () => {});
      return channel.checkExchange(broker.topology.eventsExchange).then(
        () => true,
        () => false,
      );
    };
    await until('it is made again', isThere);
  });
});

describe('a memory alarm', () => {
  let isRaised = false;
  async function raiseAlarm(): Promise<void> {
    isRaised = true;
    await server.control('set_vm_memory_high_watermark', '0.000001');
  }
  async function endAlarm(): Promise<void> {
    if (isRaised) await server.control('set_vm_memory_high_watermark', '0.9');
    isRaised = false;
  }
  afterEach(endAlarm);

  /** Nothing is pending then, and the relay has one confirm. */
  const openingIsDone = (url: string) =>
    until('the opening is recorded', async () => {
      const { relay, outbox } = await readyz(url);
      return relay.active && relay.ledger.confirmed === 1 && outbox.pendingChanges === 0;
    });

  it('makes the relay wait while updates are accepted, and costs neither an event nor the session', async () => {
    const { url } = await startApiHere(database, broker, { RELAY_REPUBLISH_MS: '60000' });
    const worker = await startWorkerHere(database, broker);
    await openingIsDone(url);
    await raiseAlarm();
    for (let count = 0; count < 50; count += 1) {
      const { status } = await send(url, 'POST', '/v1/balance-updates', { accountId: 'a', amount: 1 });
      expect(status).toBe(200);
    }
    await until('the relay knows', async () => (await readyz(url)).relay.ledger.broker === 'blocked');
    const first = await send(url, 'GET', '/readyz');
    expect(first).toMatchObject({ status: 200, body: { outbox: { pendingChanges: 50 }, relay: { active: true } } });
    await until(
      'the oldest is older',
      async () => (await readyz(url)).outbox.oldestAgeMs > first.body.outbox.oldestAgeMs,
    );
    await endAlarm();
    expect(await drained(database)).toMatchObject({ ledgerEntries: 51, offendingAccounts: 0 });
    expect((await readyz(url)).relay.ledger).toMatchObject({ broker: 'connected', confirmed: 51 });
    expect(worker.consumer.counts.duplicates).toBe(0);
    await until('nothing is pending', async () => (await readyz(url)).outbox.pendingChanges === 0);
    expect((await readyz(url)).outbox.oldestAgeMs).toBe(0);
  });

  it('that lasts longer than a confirm may take is no reason for a new connection', async () => {
    const confirmTimeoutMs = 500;
    const settings = readApiSettings({ DATABASE_URL: database.url, AMQP_URL: broker.url, RELAY_REPUBLISH_MS: '60000' });
    const log = createLogger('test', 'silent');
    const relay = startRelay({ ...settings, topology: broker.topology, log, confirmTimeoutMs });
    onCleanUp(() => relay.stop());
    const worker = await startWorkerHere(database, broker);
    await until('the relay is active', () => relay.state().active);
    await drained(database); // the opening
    await raiseAlarm();
    await applyDirectly(database.pool, 'a', 1);
    await until('the relay knows', () => relay.state().ledger.broker === 'blocked');
    const overAt = performance.now() + 4 * confirmTimeoutMs;
    await until('it has lasted', () => performance.now() > overAt);
    expect(relay.state()).toMatchObject({ active: true, ledger: { broker: 'blocked' } });
    await endAlarm();
    expect(await drained(database)).toMatchObject({ ledgerEntries: 2, offendingAccounts: 0 });
    expect(relay.state().ledger).toMatchObject({ confirmed: 2 });
    expect(worker.consumer.counts.duplicates).toBe(0);
  });

  it('makes nothing look lost that it only delayed', async () => {
    const patienceMs = 3000;
    const { url } = await startApiHere(database, broker, { RELAY_REPUBLISH_MS: String(patienceMs) });
    await startWorkerHere(database, broker);
    await openingIsDone(url);
    await raiseAlarm();
    await applyDirectly(database.pool, 'a', 1);
    await until('it waits', async () => (await readyz(url)).outbox.oldestAgeMs > patienceMs + 500);
    const slow = await database.pool.connect();
    try {
      await slow.query('BEGIN; LOCK TABLE ledger IN EXCLUSIVE MODE'); // it stays in the worker's hands
      await endAlarm();
      await until('it is confirmed', async () => (await readyz(url)).relay.ledger.confirmed === 2);
      const checkedAt = performance.now() + patienceMs / 2;
      await until('losses were looked for', () => performance.now() > checkedAt);
      expect((await readyz(url)).relay.ledger).toMatchObject({ confirmed: 2, republished: 0 });
    } finally {
      await slow.query('COMMIT');
      slow.release();
    }
    expect(await drained(database)).toMatchObject({ ledgerEntries: 2, offendingAccounts: 0 });
  });

  it('makes putting dead letters back fail with a sentence, and lose none', async () => {
    const channel = await openChannel();
    channel.publish(broker.topology.deadLetters, '', Buffer.from('a letter'));
    await until('it is there', async () => (await channel.checkQueue(broker.topology.deadLetters)).messageCount === 1);
    await raiseAlarm();
    const connection = await connect(broker.url, 'test');
    const queue = await openDeadLetters(connection, broker.topology);
    await expect(queue.putBack({ ids: [], reasons: [] }, Number.POSITIVE_INFINITY)).rejects.toThrow(
      /accepts no messages/,
    );
    await closeConnection(connection);
    await endAlarm(); // until then RabbitMQ does not read from this connection, and so does not see that it has ended
    await until('it is back', async () => (await channel.checkQueue(broker.topology.deadLetters)).messageCount === 1);
  });

  it('that is there at the start, or at a stop, holds up neither', async () => {
    await raiseAlarm();
    const { url, stop } = await startApiHere(database, broker);
    await applyDirectly(database.pool, 'a', 1);
    await until('the relay knows', async () => (await readyz(url)).relay.ledger.broker === 'blocked');
    const startedAt = performance.now();
    await stop();
    expect(performance.now() - startedAt).toBeLessThan(11_000); // 12 s where it waits for what it can't publish
    await endAlarm();
    await startApiHere(database, broker);
    await startWorkerHere(database, broker);
    expect(await drained(database)).toMatchObject({ ledgerEntries: 2, offendingAccounts: 0 });
  });
});

describe('what RabbitMQ refuses', () => {
  const USER = 'somebody';
  const urlOf = (user: string, password: string, vhost = '') => {
    const url = new URL(server.url);
    Object.assign(url, { username: user, password, pathname: `/${vhost}` });
    return url.href;
  };

  interface Refusal {
    url: () => string;
    prepare: () => Promise<unknown>;
    advice: RegExp;
    repair: () => Promise<unknown>;
  }
  const withChannel = async (work: (channel: Channel) => Promise<unknown>) => {
    const connection = await connect(server.url, 'test');
    await work(await connection.createChannel());
    await closeConnection(connection);
  };
  const addUser = async () => {
    await server.control('add_user', USER, 'right');
    onCleanUp(() => server.control('delete_user', USER));
  };
  const grant = (vhost: string) => {
    const own = `^${broker.namespace}\\.`; // as docs/secure.md says
    return server.control('set_permissions', '-p', vhost, USER, own, own, own);
  };

  const refusals: Record<string, Refusal> = {
    'a wrong password': {
      url: () => urlOf(USER, 'right'),
      prepare: async () => {
        await addUser();
        await grant('/');
        await server.control('change_password', USER, 'another');
      },
      advice: /refuses the user "somebody" or the password in AMQP_URL/,
      repair: () => server.control('change_password', USER, 'right'),
    },
    'a virtual host that is not there': {
      url: () => urlOf(USER, 'right', 'nowhere'),
      prepare: addUser,
      advice: /refuses the virtual host "nowhere" in AMQP_URL/,
      repair: async () => {
        await server.control('add_vhost', 'nowhere');
        onCleanUp(() => server.control('delete_vhost', 'nowhere'));
        await grant('nowhere');
      },
    },
    'a missing permission': {
      url: () => urlOf(USER, 'right'),
      prepare: async () => {
        await addUser();
        await server.control('set_permissions', '-p', '/', USER, '^$', '.*', '.*');
      },
      advice: /"somebody" lacks a permission .* exchange '.*events'/,
      repair: () => grant('/'),
    },
    'a ledger queue of another kind': {
      url: () => server.url,
      prepare: () => withChannel((channel) => channel.assertQueue(broker.topology.ledgerQueue, { durable: true })),
      advice: /exists with other properties .*rabbitmqctl delete_queue.*ledger/,
      repair: () => withChannel((channel) => channel.deleteQueue(broker.topology.ledgerQueue)),
    },
    'a queue of dead letters with other arguments': {
      url: () => server.url,
      prepare: () =>
        withChannel((channel) =>
          channel.assertQueue(broker.topology.deadLetters, {
            durable: true,
            arguments: { 'x-queue-type': 'quorum', 'x-max-length': 100_000 },
          }),
        ),
      advice: /Read its messages \(dead letters: npm run dead-letters\).*x-delivery-limit/,
      repair: () => withChannel((channel) => channel.deleteQueue(broker.topology.deadLetters)),
    },
    'an exchange of another kind': {
      url: () => server.url,
      prepare: () => withChannel((channel) => channel.assertExchange(broker.topology.eventsExchange, 'fanout')),
      advice: /exists with other properties .*events/,
      repair: () => withChannel((channel) => channel.deleteExchange(broker.topology.eventsExchange)),
    },
  };

  it.each(Object.entries(refusals))(
    '(%s) is logged with what to do, a few times; updates continue, and events once it is repaired',
    async (_, { url: brokerUrl, prepare, advice, repair }) => {
      await prepare();
      const its = { ...broker, url: brokerUrl() };
      const port = String(20_000 + Math.floor(Math.random() * 10_000));
      const api = await spawnProcess('api', environmentOf(database, its, { PORT: port, LOG_LEVEL: 'warn' }));
      const refused = () => problemsOf(api);
      await until('it has tried three times', () => refused().length >= 3);
      for (const line of refused())
        expect(line).toMatchObject({ level: 'error', advice: expect.stringMatching(advice) });
      expect(api.output()).not.toContain('right'); // the password
      const url = `http://127.0.0.1:${port}`;
      const update = await send(url, 'POST', '/v1/balance-updates', { accountId: 'a', amount: 1 });
      expect(update.status).toBe(200);
      expect((await readyz(url)).outbox.pendingChanges).toBe(2); // and the opening
      await repair();
      await startWorkerHere(database, its);
      expect(await drained(database)).toMatchObject({ ledgerEntries: 2, offendingAccounts: 0 });
      expect(refused().length).toBeLessThan(24); // each of both tracks backed off, in the seconds that the repair took
      expect(api.child.exitCode).toBeNull();
    },
  );
});
