// What docker-compose.yml gives its services, on real servers: passwords that are made once, a
// login role and a user for each, and rights with which everything works and nothing else does.
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import amqp from 'amqplib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createClient } from '../../src/client/client.ts';
import { subscribe } from '../../src/client/events.ts';
import { readWorkerSettings } from '../../src/shared/config.ts';
import { openClient, openPool } from '../../src/shared/database.ts';
import { createLogger } from '../../src/shared/logging.ts';
import { migrate } from '../../src/shared/migrations.ts';
import { topologyOf } from '../../src/shared/topology.ts';
import { startWorker } from '../../src/worker/worker.ts';
import { type DisposableBroker, startDisposableBroker, startDisposablePostgres } from '../support/backends.ts';
import { watch } from '../support/console-watcher.ts';
import {
  cleanUp,
  type Database,
  drained,
  environmentOf,
  onCleanUp,
  send,
  startApiHere,
  until,
} from '../support/harness.ts';

const SCRIPT = fileURLToPath(new URL('../../src/compose/secrets.ts', import.meta.url));
const COMMAND = fileURLToPath(new URL('../../src/cli/highload-balance.mjs', import.meta.url));
const FOLDERS = ['kept', 'roles', 'rabbitmq', 'owner', 'api', 'worker', 'operator', 'grafana'];
const REFUSED = { code: 403 };
const TOPOLOGY = topologyOf('balance');

let folder: string;
let server: string;
let broker: DisposableBroker;
let api: string;

async function newFolder(): Promise<string> {
  const created = await mkdtemp(path.join(tmpdir(), 'secrets-'));
  onCleanUp(() => rm(created, { recursive: true }));
  for (const name of FOLDERS) await mkdir(path.join(created, name));
  return created;
}

const secrets = async (...args: string[]) => (await promisify(execFile)(process.execPath, [SCRIPT, ...args])).stdout;

async function contents(of: string): Promise<Record<string, string>> {
  const files = (await readdir(of, { recursive: true, withFileTypes: true })).filter((one) => one.isFile());
  const read = files.map(async ({ parentPath, name }) => {
    const file = path.join(parentPath, name);
    return [path.relative(of, file), await readFile(file, 'utf8')] as const;
  });
  return Object.fromEntries(await Promise.all(read));
}

/** A URL of a service, to where the server of this test is. */
async function urlOf(file: string, to: string): Promise<string> {
  const url = new URL(await readFile(path.join(folder, file), 'utf8'));
  url.host = new URL(to).host;
  return url.href;
}
const databaseUrl = (service: string) => urlOf(`${service}/database-url`, server);
const amqpUrl = (service: string) => urlOf(`${service}/amqp-url`, broker.url);

beforeAll(async () => {
  folder = await newFolder();
  await secrets(folder);
  const postgres = await startDisposablePostgres();
  onCleanUp(() => postgres.stop());
  server = postgres.url;
  broker = await startDisposableBroker({ management: true });
  onCleanUp(() => broker.stop());
  const superuser = await openClient(server, 'test');
  await superuser.query('CREATE DATABASE balance');
  const script = await readFile(path.join(folder, 'roles/roles.sql'), 'utf8');
  for (const _ of [1, 2]) await superuser.query(script); // at every start
  await superuser.end();
  await migrate(await databaseUrl('owner'));
  await loadDefinitions();
  await startSystem();
});
afterAll(cleanUp);

/** As RabbitMQ does at its start. */
async function loadDefinitions(): Promise<void> {
  const { username, password } = new URL(broker.url);
  const url = `${broker.managementUrl}/api/definitions`;
  const authorization = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
  const body = await readFile(path.join(folder, 'rabbitmq/definitions.json'), 'utf8');
  const load = () =>
    fetch(url, { method: 'POST', body, headers: { authorization, 'content-type': 'application/json' } });
  await until('the management plugin answers', () =>
    load().then(
      ({ ok }) => ok,
      () => false,
    ),
  );
}

const settingsOf = async (service: string) => ({
  ...environmentOf(
    { url: await databaseUrl(service) } as Database,
    { url: await amqpUrl(service), namespace: 'balance', topology: TOPOLOGY } as Parameters<typeof environmentOf>[1],
  ),
  ...(broker.managementUrl && { AMQP_MANAGEMENT_URL: broker.managementUrl }),
});

async function startSystem(): Promise<void> {
  const { DATABASE_URL: url, AMQP_URL } = await settingsOf('api');
  const own = { url: AMQP_URL, namespace: 'balance', topology: TOPOLOGY } as Parameters<typeof startApiHere>[1];
  const more = { AMQP_MANAGEMENT_URL: broker.managementUrl as string, SUBSCRIBER_ASIDE_MS: '1000' };
  ({ url: api } = await startApiHere({ url } as Database, own, more));
  const worker = await startWorker(readWorkerSettings(await settingsOf('worker')), createLogger('worker', 'silent'));
  onCleanUp(() => worker.stop());
  await send(api, 'POST', '/v1/accounts', { id: 'alice' });
}

async function channelAs(url: string): Promise<amqp.Channel> {
  const connection = await amqp.connect(url);
  onCleanUp(() => connection.close());
  connection.on('error', () => {});
  const channel = await connection.createConfirmChannel();
  channel.on('error', () => {});
  return channel;
}

/** What the broker answers to something that needs a right; the channel ends with a refusal. */
async function outcome(url: string, act: (channel: amqp.Channel) => Promise<unknown>): Promise<unknown> {
  const channel = await channelAs(url);
  const ended = new Promise((_, reject) => channel.once('error', reject));
  ended.catch(() => {});
  try {
    return await Promise.race([act(channel), ended]);
  } catch (error) {
    return error;
  }
}

const publish = (exchange: string, key: string) => async (channel: amqp.Channel) => {
  channel.publish(exchange, key, Buffer.from('{}'));
  await (channel as amqp.ConfirmChannel).waitForConfirms();
  return 'published';
};
const subscriberUrl = async () => {
  const url = new URL((await secrets(folder, 'show', 'subscriber')).trim());
  url.host = new URL(broker.url).host;
  return url.href;
};

const credit = () => send(api, 'POST', '/v1/balance-updates', { accountId: 'alice', amount: 1 });

describe('the secrets', () => {
  it('are made once, differ from each other and from those of another system', async () => {
    const before = JSON.parse(await readFile(path.join(folder, 'kept/passwords.json'), 'utf8'));
    await secrets(folder);
    expect(JSON.parse(await readFile(path.join(folder, 'kept/passwords.json'), 'utf8'))).toEqual(before);
    const another = await newFolder();
    await secrets(another);
    const other = JSON.parse(await readFile(path.join(another, 'kept/passwords.json'), 'utf8'));
    const all = [before, other].flatMap((one) =>
      Object.values(one).flatMap((holders) => Object.values(holders as object)),
    );
    expect(new Set(all).size).toBe(all.length);
    for (const password of all) expect(password).toMatch(/^[A-Za-z0-9_-]{32}$/);
  });

  it('are in no folder of a service that has nothing to do with them', async () => {
    const {
      database,
      broker: users,
      grafana,
    } = JSON.parse(await readFile(path.join(folder, 'kept/passwords.json'), 'utf8'));
    const knowing: Record<string, string[]> = {
      owner: [database.owner],
      api: [database.api, users.api],
      worker: [database.worker, users.worker],
      operator: [database.operator, users.operator],
      rabbitmq: [], // hashes
      roles: Object.values(database),
      grafana: [grafana.admin],
    };
    const every = [database, users, grafana].flatMap((holders) => Object.values(holders as object)) as string[];
    for (const [name, known] of Object.entries(knowing)) {
      const text = Object.values(await contents(path.join(folder, name))).join('\n');
      expect(every.filter((password) => text.includes(password)).sort(), name).toEqual([...known].sort());
    }
  });

  it('can be read by whichever account a container has, and written by none of them', async () => {
    for (const file of Object.keys(await contents(folder)))
      expect((await stat(path.join(folder, file))).mode & 0o777, file).toBe(0o444);
  });

  it('are shown by name, and only those that a person needs', async () => {
    expect(await secrets(folder, 'show', 'subscriber')).toMatch(/^amqp:\/\/subscriber:[\w-]{32}@localhost:5673\n$/);
    expect(await secrets(folder, 'show', 'management')).toMatch(/^http:\/\/operator:[\w-]{32}@localhost:15673\n$/);
    expect(await secrets(folder, 'show', 'grafana')).toMatch(/^[\w-]{32}\n$/);
    await expect(secrets(folder, 'show', 'owner')).rejects.toMatchObject({ code: 2, stderr: /show subscriber/ });
  });
});

describe('with these rights', () => {
  it('everything works: an update is published, recorded, watched and proven', async () => {
    const url = await subscriberUrl();
    const received: string[] = [];
    const listen = (queue?: string) => {
      const subscription = subscribe({
        ...{ url, client: createClient({ url: api }), ...(queue && { queue }) },
        handle: ({ id }) => void received.push(`${queue} ${id}`),
        onGap: () => 'skip',
        onRewind: () => {},
      });
      onCleanUp(() => subscription.stop());
    };
    listen('subscriber.billing');
    listen(); // a queue without a name, as long as the program runs
    const watcher = await watch(api, {});
    await until('the console gets events', () => watcher.live.at(-1)?.broker === 'connected');
    await until('each gets an event', async () => {
      expect((await credit()).status).toBe(200);
      const queues = new Set(received.map((one) => one.split(' ')[0]));
      return queues.size === 2 && watcher.events.length > 0;
    });
    watcher.leave();
    const pool = openPool(await databaseUrl('operator'), 'test', 1, { access: 'any server' });
    onCleanUp(() => pool.end());
    await drained({ url: '', pool });
    const env = { PATH: process.env.PATH, ...(await settingsOf('operator')) };
    const operator = async (...args: string[]) =>
      (await promisify(execFile)(process.execPath, [COMMAND, ...args], { env })).stdout;
    expect(await operator('verify')).toMatch(/verified\n$/);
    expect(await operator('subscribers')).toContain('subscriber.billing');
    expect(await operator('replay', '--queue', 'subscriber.billing', '--account', 'alice')).toMatch(/published/);
    expect(await operator('dead-letters', 'list')).toMatch(/./);
  });

  it('the API puts the queue of a subscriber aside that takes nothing', async () => {
    const channel = await channelAs(await subscriberUrl());
    const full = {
      durable: true,
      arguments: { 'x-queue-type': 'quorum', 'x-max-length': 1, 'x-overflow': 'reject-publish' },
    };
    await channel.assertQueue('subscriber.full', full);
    await channel.bindQueue('subscriber.full', TOPOLOGY.eventsExchange, '#');
    await until(
      'it was put aside',
      async () => {
        await credit();
        return (await send(api, 'GET', '/readyz')).body.relay.subscribers.putAside > 0;
      },
      60_000,
    );
    await channel.deleteQueue('subscriber.full');
  });

  it.each(['api', 'worker', 'operator'])(
    'the login role of the %s is no owner, no superuser, and confined to its database',
    async (service) => {
      const client = await openClient(await databaseUrl(service), 'test');
      onCleanUp(() => client.end());
      for (const statement of [
        'CREATE TABLE mine ()',
        'CREATE TEMPORARY TABLE mine ()',
        'DROP TABLE ledger',
        'DELETE FROM ledger',
        'CREATE ROLE mine',
        "COPY account TO PROGRAM 'cat'",
      ])
        await expect(client.query(statement), statement).rejects.toMatchObject({ code: '42501' });
      const elsewhere = new URL(await databaseUrl(service));
      for (const database of ['postgres', 'template1']) {
        elsewhere.pathname = `/${database}`;
        await expect(openClient(elsewhere.href, 'test'), database).rejects.toThrow(/permission denied for database/);
      }
    },
  );

  it('the owner of the database is no superuser', async () => {
    const client = await openClient(await databaseUrl('owner'), 'test');
    onCleanUp(() => client.end());
    const { rows } = await client.query(
      'SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = current_user',
    );
    expect(new Set(Object.values(rows[0]))).toEqual(new Set([false]));
  });

  it('a subscriber has its own queues, reads events, and nothing else', async () => {
    const url = await subscriberUrl();
    const { eventsExchange, ledgerExchange, ledgerQueue, deadLetters } = TOPOLOGY;
    for (const [what, act] of Object.entries<(channel: amqp.Channel) => Promise<unknown>>({
      'publish an event': publish(eventsExchange, 'balance.credited'),
      'publish to the ledger': publish(ledgerExchange, ''),
      'publish to a queue by its name': publish('', ledgerQueue),
      'publish dead letters': publish(deadLetters, ''),
      'take from the ledger': (channel) => channel.consume(ledgerQueue, () => {}),
      'take dead letters': (channel) => channel.get(deadLetters),
      'empty the ledger queue': (channel) => channel.purgeQueue(ledgerQueue),
      'delete the ledger queue': (channel) => channel.deleteQueue(ledgerQueue),
      'delete the exchange': (channel) => channel.deleteExchange(eventsExchange),
      'declare a queue of the service': (channel) => channel.assertQueue('balance.mine'),
      'declare any queue': (channel) => channel.assertQueue('mine'),
      'bind the ledger queue': (channel) => channel.bindQueue(ledgerQueue, eventsExchange, '#'),
      'dead-letter into the ledger': (channel) =>
        channel.assertQueue('subscriber.mine', { arguments: { 'x-dead-letter-exchange': ledgerExchange } }),
    }))
      expect(await outcome(url, act), what).toMatchObject(REFUSED);
    const { status } = await fetch(`${broker.managementUrl}/api/overview`, {
      headers: { authorization: `Basic ${btoa(`subscriber:${new URL(url).password}`)}` },
    });
    expect(status).toBe(401);
  });

  it('the worker publishes no events, and takes none from subscribers', async () => {
    const url = await amqpUrl('worker');
    const channel = await channelAs(await subscriberUrl());
    await channel.assertQueue('subscriber.other');
    for (const [what, act] of Object.entries<(channel: amqp.Channel) => Promise<unknown>>({
      'publish an event': publish(TOPOLOGY.eventsExchange, 'balance.credited'),
      'publish to a queue by its name': publish('', 'subscriber.other'),
      'take from a subscriber': (channel) => channel.get('subscriber.other'),
      'delete the queue of a subscriber': (channel) => channel.deleteQueue('subscriber.other'),
    }))
      expect(await outcome(url, act), what).toMatchObject(REFUSED);
  });

  it('the API does not read what subscribers have, nor delete it', async () => {
    const url = await amqpUrl('api');
    const channel = await channelAs(await subscriberUrl());
    await channel.assertQueue('subscriber.third');
    for (const act of [
      (channel: amqp.Channel) => channel.get('subscriber.third'),
      (channel: amqp.Channel) => channel.purgeQueue('subscriber.third'),
      (channel: amqp.Channel) => channel.deleteQueue('subscriber.third'),
    ])
      expect(await outcome(url, act)).toMatchObject(REFUSED);
  });
});
