// AMQP_URL with several nodes of a cluster: where one is lost, refuses, or answers nobody, the next
// one serves. The nodes are ways to one broker, each of which can be closed.
import { createServer } from 'node:net';
import { afterEach, beforeEach, describe, expect, inject, it } from 'vitest';
import { createClient } from '../../src/client/client.ts';
import {
  type BrokerLink,
  closeConnection,
  connect,
  keepBrokerLink,
  type LinkFailure,
} from '../../src/shared/broker.ts';
import { brokerOf } from '../../src/shared/broker-urls.ts';
import { declareTopology } from '../../src/shared/topology.ts';
import { startProxy, type TcpProxy } from '../chaos/proxy.ts';
import { runCommand } from '../support/commands.ts';
import {
  addressesOf,
  applyDirectly,
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  insertAccounts,
  onCleanUp,
  send,
  startApiHere,
  startWorkerHere,
  subscribe,
  until,
} from '../support/harness.ts';
import { startSubscriber } from '../support/subscriber.ts';

/**
 * To the next node: some 50 ms on a quiet machine, and less than the 5 s that one which never
 * answers is waited for.
 */
const SWITCH_MS_MAX = 4500;

interface Node {
  url: string;
  proxy: TcpProxy;
  lose(): void;
  revive(): void;
}

let broker: Broker;
let nodes: Node[];
/** At all nodes. */
let theirs: Broker;

beforeEach(async () => {
  broker = createBroker();
  nodes = await Promise.all([startNode(), startNode(), startNode()]);
  theirs = { ...broker, url: listOf(nodes) };
});
afterEach(cleanUp);

const listOf = (some: readonly Pick<Node, 'url'>[]) => some.map(({ url }) => url).join(',');

async function startNode(): Promise<Node> {
  const url = new URL(inject('amqpUrl'));
  const proxy = await startProxy({ port: Number(url.port) });
  onCleanUp(() => proxy.close());
  url.port = String(proxy.port);
  return {
    url: url.href,
    proxy,
    lose() {
      proxy.refuse(true);
      for (const connection of proxy.connections()) connection.cut();
    },
    revive: () => proxy.refuse(false),
  };
}

/** Takes connections, and says nothing. */
async function startBlackHole(): Promise<string> {
  const server = createServer((socket) => socket.on('error', () => {}).resume());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onCleanUp(async () => server.close());
  return `amqp://guest:secret@127.0.0.1:${(server.address() as { port: number }).port}`;
}

/** The node that a service is connected to now. */
const nodeOf = (label: string) => nodes.find(({ proxy }) => proxy.connections(`highload-balance ${label}`).length > 0);

/** Loses the node of a service. @returns after how many milliseconds it is at another. */
async function loseNodeOf(label: string): Promise<number> {
  const lost = nodeOf(label);
  expect(lost, label).toBeDefined();
  const lostAt = performance.now();
  lost?.lose();
  await until(`${label} is at another node`, () => nodeOf(label) !== undefined);
  return performance.now() - lostAt;
}

interface Recorded {
  link: BrokerLink;
  connectedTo: string[];
  failures: LinkFailure[];
  end(): void;
}

function startLink(list: string): Recorded {
  const connectedTo: string[] = [];
  const failures: LinkFailure[] = [];
  let end = () => {};
  const fail = (failure: LinkFailure) => failures.push(failure);
  const link = keepBrokerLink({
    url: list,
    service: 'test link',
    log: { info: ({ broker: node }) => connectedTo.push(node), warn: fail, error: fail },
    run: ({ signal }) =>
      new Promise((resolve) => {
        signal.addEventListener('abort', () => resolve());
        end = resolve;
      }),
  });
  onCleanUp(() => link.stop());
  return { link, connectedTo, failures, end: () => end() };
}

describe('the node that is connected to', () => {
  let database: Database;
  beforeEach(async () => {
    database = await createDatabase();
    await insertAccounts(database, 'a');
  });

  it('is lost: relay and worker go on at another, and nothing is lost or recorded twice', async () => {
    const received = await subscribe(broker);
    const { url } = await startApiHere(database, theirs);
    const worker = await startWorkerHere(database, theirs);
    await drained(database);
    let stopped = false;
    let sent = 0;
    const load = (async () => {
      for (; !stopped; sent += 1) {
        const { status } = await send(url, 'POST', '/v1/balance-updates', { accountId: 'a', amount: 1 });
        expect(status).toBe(200);
      }
    })();
    for (const label of ['relay ledger', 'worker']) {
      const before = sent;
      await until('updates go on', () => sent > before + 20);
      expect(await loseNodeOf(label), label).toBeLessThan(SWITCH_MS_MAX);
      const after = worker.consumer.counts.recorded;
      await until('entries come again', () => worker.consumer.counts.recorded > after);
      for (const node of nodes) node.revive();
    }
    stopped = true;
    await load;
    expect(await drained(database)).toMatchObject({ ledgerEntries: sent + 1, offendingAccounts: 0 });
    const seen = () => new Set(received.map(({ body }) => body.data.version));
    await until('the subscriber has all', () => seen().size === sent + 1);
  });

  it('is no node any more, as all are: /readyz says so until one is back', async () => {
    const api = await startApiHere(database, theirs);
    const worker = await startWorkerHere(database, theirs, { HEALTH_PORT: '0', HEALTH_HOST: '127.0.0.1' });
    await drained(database);
    const healthOf = async (url: string) => (await send(url, 'GET', '/readyz')).body;
    const workerHealth = () => healthOf(`http://127.0.0.1:${worker.healthPort}`);
    for (const node of nodes) node.lose();
    await until('both say so', async () => {
      const { relay } = await healthOf(api.url);
      return relay.ledger.broker === 'disconnected' && relay.subscribers.broker === 'disconnected';
    });
    expect(await workerHealth()).toMatchObject({ status: 'unavailable', broker: 'unavailable', database: 'ok' });
    await applyDirectly(database.pool, 'a', 1);
    nodes[1]?.revive();
    expect(await drained(database)).toMatchObject({ ledgerEntries: 2, offendingAccounts: 0 });
    await until('both are ready', async () => {
      const { relay } = await healthOf(api.url);
      return relay.ledger.broker === 'connected' && (await workerHealth()).status === 'ok';
    });
  });
});

describe('a link', () => {
  it('is at the one node that takes it, whichever comes first, and names the others without a password', async () => {
    const [good, ...others] = nodes as [Node, Node, Node];
    for (const node of others) node.lose();
    const links = Array.from({ length: 24 }, () => startLink(theirs.url)); // so that each node comes first for some
    const startedAt = performance.now();
    await until('all are connected', () => links.every(({ link }) => link.connected));
    expect(performance.now() - startedAt).toBeLessThan(SWITCH_MS_MAX);
    expect(new Set(links.flatMap(({ connectedTo }) => connectedTo))).toEqual(new Set([brokerOf(good.url)]));
    const failures = links.flatMap((one) => one.failures);
    expect(new Set(failures.map((failure) => failure.broker))).toEqual(new Set(others.map(({ url }) => brokerOf(url))));
    for (const { pauseMs, broker: node } of failures) {
      expect(pauseMs).toBe(0);
      expect(node).toMatch(/^127\.0\.0\.1:\d+$/);
    }
  });

  it('tries all at once and then pauses, for longer each time', async () => {
    for (const node of nodes) node.lose();
    const { failures } = startLink(theirs.url);
    await until('each was tried four times', () => failures.length >= 12);
    const rounds = [0, 3, 6, 9].map((from) => failures.slice(from, from + 3));
    for (const [index, round] of rounds.entries()) {
      expect(new Set(round.map((failure) => failure.broker)).size).toBe(3);
      const [first, second, third] = round.map(({ pauseMs }) => pauseMs);
      expect([first, second]).toEqual([0, 0]);
      expect(third).toBeGreaterThanOrEqual(100 * 2 ** index);
      expect(third).toBeLessThanOrEqual(200 * 2 ** index);
    }
  });

  it('waits for a node that never answers once, and not again while the others serve', async () => {
    const hole = await startBlackHole();
    const [one, other] = nodes as [Node, Node, Node];
    const links = Array.from({ length: 6 }, () => startLink(listOf([one, other, { url: hole }])));
    const startedAt = performance.now();
    await until('all are connected', () => links.every(({ link }) => link.connected));
    expect(performance.now() - startedAt).toBeLessThan(7000);
    for (const { failures } of links) {
      expect(failures.length).toBeLessThan(2);
      for (const { broker: node, err } of failures) {
        expect(node).toBe(brokerOf(hole));
        expect(err.message).toMatch(/did not accept the connection within 5000 ms/);
      }
    }
    const unlucky = links.filter(({ failures }) => failures.length === 1);
    const endedAt = performance.now();
    for (const { end } of unlucky) end();
    await until('they are at the other node', () => unlucky.every(({ connectedTo }) => connectedTo.length === 2));
    expect(performance.now() - endedAt).toBeLessThan(SWITCH_MS_MAX);
  });

  it('is spread over the nodes', async () => {
    const links = Array.from({ length: 40 }, () => startLink(theirs.url));
    await until('all are connected', () => links.every(({ link }) => link.connected));
    for (const { proxy } of nodes) expect(proxy.connections().length).toBeGreaterThan(0);
  });
});

it('is tried in turn by a single connection too, which says of each node why it is of no use', async () => {
  const [good, ...others] = nodes as [Node, Node, Node];
  for (const node of others) node.lose();
  for (let count = 0; count < 8; count += 1) await closeConnection(await connect(theirs.url, 'test'));
  good.lose();
  const failed = connect(theirs.url, 'test');
  for (const { url } of nodes) await expect(failed).rejects.toThrow(`${brokerOf(url)}: `);
});

it('is what commands take, and they say it of each node without a password', async () => {
  const database = await createDatabase();
  const list = () => runCommand(['dead-letters', 'list'], addressesOf(database, theirs));
  await declareTopology(await (await broker.connect()).createChannel(), broker.topology);
  const [, ...others] = nodes as [Node, Node, Node];
  for (const node of others) node.lose();
  expect(await list()).toMatchObject({ code: 0, err: '' });
  nodes[0]?.lose();
  const { code, err } = await list();
  expect(code).toBe(1);
  const said = nodes.map(({ url }) => `RabbitMQ at amqp://guest:***@${brokerOf(url)} cannot be used: `);
  expect(err.trim().split('\n')).toHaveLength(3);
  for (const sentence of said) expect(err).toContain(sentence);
});

it('is what subscribe() of the client takes: its events go on, each once', async () => {
  const database = await createDatabase();
  const { url } = await startApiHere(database, broker);
  await startWorkerHere(database, broker);
  const queue = `${broker.namespace}-subscriber`;
  const { subscription, versionsOf, problems } = startSubscriber({
    ...{ url: theirs.url, namespace: broker.namespace, queue, client: createClient({ url }) },
  });
  onCleanUp(async () => {
    await subscription.stop();
    await (await (await broker.connect()).createChannel()).deleteQueue(queue);
  });
  await until('it consumes', () => subscription.isConsuming);
  await insertAccounts(database, 'a');
  await applyDirectly(database.pool, 'a', 1, 3);
  await until('it has the first', () => versionsOf('a').includes(3));
  const lost = nodeOf('subscriber') as Node;
  expect(await loseNodeOf('subscriber')).toBeLessThan(SWITCH_MS_MAX);
  await until('it consumes again', () => subscription.isConsuming);
  await applyDirectly(database.pool, 'a', 1, 3);
  await until('it has the rest', () => versionsOf('a').includes(6));
  const versions = versionsOf('a');
  expect(versions).toEqual([...new Set(versions)].sort());
  expect(problems).toEqual([
    expect.objectContaining({
      kind: 'disconnected',
      message: expect.stringContaining(`RabbitMQ at ${brokerOf(lost.url)}: `),
    }),
  ]);
});
