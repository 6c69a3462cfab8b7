// highload-balance replay: publishes changes of the past again. Its --help is the reference.
import type { ChannelModel } from 'amqplib';
import { answered } from '../shared/broker.ts';
import type { Change } from '../shared/change.ts';
import { SettingsError } from '../shared/config.ts';
import type { Client } from '../shared/database.ts';
import { topologyOf } from '../shared/topology.ts';
import {
  brokerOfCommand,
  INTERRUPTED,
  isOfDatabase,
  runCommand,
  UsageError,
  withBroker,
  withDatabase,
} from './command.ts';
import { countChanges } from './count-changes.ts';
import { interruption, startProgress } from './progress.ts';
import { type Position, readChanges } from './replay/changes.ts';
import { beginHandOver } from './replay/hand-over.ts';
import { createReplayPublisher, replayed } from './replay/publisher.ts';
import { HELP, parseRequest, RATE_MAX, type ReplayRequest } from './replay/request.ts';

const NOT_FOUND = 404;

interface Replay {
  /** Events that RabbitMQ has taken. */
  published: number;
  /** Changes that were looked at for them. */
  scanned: number;
  /** Messages that were published meanwhile and put in between, with --hand-over. */
  handedOver: number | undefined;
  /** How far it got; null: nothing was there. */
  last: Position | null;
  complete: boolean;
}

async function replay(
  client: Client,
  connection: ChannelModel,
  namespace: string,
  { queue, handOver, selection, after, rate }: ReplayRequest,
): Promise<Replay> {
  const { accountId } = selection;
  const topology = topologyOf(namespace);
  const due = await countChanges(client, accountId);
  if (accountId !== undefined && due === 0) {
    throw new SettingsError(`There is no account ${accountId}.`);
  }
  if (!handOver) await findTarget(connection, queue, topology.eventsExchange);
  const keeping = queue !== undefined && handOver ? await beginHandOver(connection, topology, queue) : undefined;
  const target =
    queue === undefined
      ? { exchange: topology.eventsExchange, routingKey: undefined }
      : { exchange: '', routingKey: queue };
  const signal = interruption();
  const publisher = await createReplayPublisher(connection, target, rate, signal);
  const done: Replay = { published: 0, scanned: 0, handedOver: undefined, last: after ?? null, complete: false };
  const progress = startProgress(
    () => `${done.published} events published, ${done.scanned} of about ${due} changes looked at${placeOf(done)}`,
  );
  try {
    for await (const { changes, scanned, last } of readChanges(client, selection, after)) {
      const before = done.published;
      await publisher.publish(changes.map(replayed), (count) => {
        const { accountId, version } = changes[count - 1] as Change;
        done.published = before + count;
        done.last = { accountId, version };
      });
      done.scanned += scanned;
      done.last = last;
      signal.throwIfAborted();
    }
    if (keeping)
      done.handedOver = await keeping.finish(await createReplayPublisher(connection, target, RATE_MAX, signal));
    done.complete = true;
  } catch (error) {
    const message = `${(error as Error).message}${goOn(done, handOver)}`;
    if (isOfDatabase(error)) throw new SettingsError(`PostgreSQL: ${message}`);
    if (error instanceof SettingsError) throw new SettingsError(message);
    if (!signal.aborted) throw new Error(message, { cause: error });
  } finally {
    progress.end();
  }
  return done;
}

function placeOf({ last }: Replay): string {
  return last ? `, at ${last.accountId}:${last.version}` : '';
}

/** What to do after half of it. */
function goOn({ last, published }: Replay, handOver: boolean): string {
  if (handOver)
    return ` ${published} events are in the queue, and what came meanwhile is not: run it again, repeats do no harm.`;
  return last ? ` Go on with --after ${last.accountId}:${last.version}.` : '';
}

async function findTarget(connection: ChannelModel, queue: string | undefined, exchange: string): Promise<void> {
  const channel = await answered('opening a channel', connection.createChannel());
  channel.on('error', () => {}); // the request that caused it fails with the same
  try {
    await (queue === undefined
      ? answered('finding the exchange', channel.checkExchange(exchange))
      : answered('finding the queue', channel.checkQueue(queue)));
  } catch (error) {
    if ((error as { code?: number }).code !== NOT_FOUND) throw error;
    throw new SettingsError(
      queue === undefined
        ? `There is no exchange ${exchange}. The API makes it: start one, or correct AMQP_NAMESPACE.`
        : `There is no queue ${queue}. Declare it first, or let --hand-over do that.`,
    );
  }
  await answered('closing a channel', channel.close());
}

function describe(done: Replay, { queue, handOver }: ReplayRequest): string {
  const where = queue === undefined ? 'to all subscribers' : `into the queue ${queue}`;
  const what = `${done.published} events published ${where}; ${done.scanned} changes looked at`;
  if (!done.complete) return `${what}. Interrupted.${goOn(done, handOver)}`;
  if (done.handedOver === undefined) return what;
  return `${what}. ${done.handedOver} messages came meanwhile and follow; from here on the queue is bound`;
}

await runCommand(async () => {
  const request = parseRequest(process.argv.slice(2));
  if (request === 'help') return console.log(HELP);
  const { amqpUrl, amqpNamespace } = brokerOfCommand();
  if (request.queue?.startsWith(`${amqpNamespace}.`)) {
    throw new UsageError(`--queue ${request.queue}: what begins with "${amqpNamespace}." is the service's own.`);
  }
  await withDatabase('replay', (client) =>
    withBroker(amqpUrl, 'replay', async (connection) => {
      const done = await replay(client, connection, amqpNamespace, request);
      const { last, ...counts } = done;
      const position = last && `${last.accountId}:${last.version}`;
      console.log(request.json ? JSON.stringify({ ...counts, last: position }) : describe(done, request));
      if (!done.complete) process.exitCode = INTERRUPTED;
    }),
  );
});
