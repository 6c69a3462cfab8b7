// highload-balance replay: publishes past changes again. Its --help is the reference.
import type { ChannelModel } from 'amqplib';

import type { Change } from '../shared/change.ts';
import { askOnce } from '../shared/channel.ts';
import { SettingsError } from '../shared/config.ts';
import type { Client } from '../shared/database.ts';
import { ALL_EVENTS, topologyOf } from '../shared/topology.ts';
import { UsageError } from './arguments.ts';
import { brokerOfCommand, INTERRUPTED, isOfDatabase, runCommand, withBroker, withDatabase } from './command.ts';
import { countChanges } from './count-changes.ts';
import { RATE_MAX } from './options.ts';
import { print } from './output.ts';
import { interruption, startProgress } from './progress.ts';
import { readChanges } from './replay/changes.ts';
import { ANY_BINDING, beginHandOver, declareQueue, type HandOver } from './replay/hand-over.ts';
import type { Position, Selection } from './replay/page.ts';
import { createReplayPublisher, replayed } from './replay/publisher.ts';
import { HELP, parseRequest, type ReplayRequest } from './replay/request.ts';
import { checkMayNote, findPassedOver, noteRangeDelivered, type PassedOver } from './subscribers/missed.ts';

const NOT_FOUND = 404;

interface Replay {
  /** Events that RabbitMQ has accepted. */
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
  { queue, handOver, after, rate, missed, ...request }: ReplayRequest,
): Promise<Replay> {
  const range = missed === undefined ? undefined : await findMissed(client, missed);
  const selection = range ? selectionOf(range) : request.selection;
  const { accountId } = selection;
  const topology = topologyOf(namespace);
  const due = await countChanges(client, accountId);
  if (accountId !== undefined && due === 0) {
    throw new SettingsError(`There is no account ${accountId}.`);
  }
  if (!handOver) await findTarget(connection, queue, topology.eventsExchange);
  const keeping =
    queue !== undefined && handOver ? await beginAnew(connection, topology.eventsExchange, queue) : undefined;
  const target =
    queue === undefined
      ? { exchange: topology.eventsExchange, routingKey: undefined }
      : { exchange: '', routingKey: queue };
  const signal = interruption();
  const publisher = await createReplayPublisher(connection, target, rate, signal);
  const done: Replay = { published: 0, scanned: 0, handedOver: undefined, last: after ?? null, complete: false };
  let isExtended = false;
  const progress = startProgress(
    () => `${done.published} events published, ${done.scanned} of at most ${due} changes looked at${placeOf(done)}`,
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
    isExtended = range !== undefined && !(await noteRangeDelivered(client, range));
    done.complete = true;
  } catch (error) {
    const message = `${(error as Error).message}${goOn(done, handOver)}`;
    if (isOfDatabase(error)) throw new SettingsError(`PostgreSQL: ${message}`);
    if (error instanceof SettingsError) throw new SettingsError(message);
    if (!signal.aborted) throw new Error(message, { cause: error });
  } finally {
    progress.end();
  }
  if (isExtended)
    throw new SettingsError(`More was passed over meanwhile: run --missed ${missed} again, duplicates do no harm.`);
  return done;
}

async function findMissed(client: Client, id: number): Promise<PassedOver> {
  await checkMayNote(client);
  return findPassedOver(client, id);
}

function selectionOf({ from, last }: PassedOver): Selection {
  const to = new Date(last.getTime() + 1); // times are of milliseconds
  return { accountId: undefined, fromVersion: undefined, toVersion: undefined, from, to };
}

/** From the beginning of all, to a queue that is made where there is none. */
async function beginAnew(connection: ChannelModel, exchange: string, queue: string): Promise<HandOver> {
  await declareQueue(connection, queue);
  return beginHandOver(connection, exchange, queue, { bound: [ALL_EVENTS], unbound: ANY_BINDING });
}

function placeOf({ last }: Replay): string {
  return last ? `, at ${last.accountId}:${last.version}` : '';
}

/** What to do after half of it. With "=", because an account may begin with "-". */
function goOn({ last, published }: Replay, handOver: boolean): string {
  if (handOver)
    return ` ${published} events are in the queue, but those published meanwhile are not: run it again, duplicates do no harm.`;
  return last ? ` Continue with --after=${last.accountId}:${last.version}.` : '';
}

async function findTarget(connection: ChannelModel, queue: string | undefined, exchange: string): Promise<void> {
  try {
    await (queue === undefined
      ? askOnce(connection, 'finding the exchange', (channel) => channel.checkExchange(exchange))
      : askOnce(connection, 'finding the queue', (channel) => channel.checkQueue(queue)));
  } catch (error) {
    if ((error as { code?: number }).code !== NOT_FOUND) throw error;
    throw new SettingsError(
      queue === undefined
        ? `There is no exchange ${exchange}. The API creates it: start one, or correct AMQP_NAMESPACE.`
        : `There is no queue ${queue}. Declare it first, or let --hand-over do that.`,
    );
  }
}

function describe(done: Replay, { queue, handOver }: ReplayRequest): string {
  const where = queue === undefined ? 'to all subscribers' : `into the queue ${queue}`;
  const what = `${done.published} events published ${where}; ${done.scanned} changes looked at`;
  if (!done.complete) return `${what}. Interrupted.${goOn(done, handOver)}`;
  if (done.handedOver === undefined) return what;
  return `${what}. ${done.handedOver} messages came meanwhile and follow; the queue is now bound`;
}

await runCommand(async () => {
  const request = parseRequest(process.argv.slice(2));
  if (request === 'help') return console.log(HELP);
  const { amqpUrl, amqpNamespace } = brokerOfCommand();
  if (request.queue?.startsWith(`${amqpNamespace}.`)) {
    throw new UsageError(`--queue ${request.queue}: names that begin with "${amqpNamespace}." belong to the service.`);
  }
  await withDatabase('replay', async (client, standby) => {
    if (standby && request.handOver) {
      throw new SettingsError(
        '--hand-over needs the primary: what this standby has not replayed yet would be missing.',
      );
    }
    await withBroker(amqpUrl, 'replay', async (connection) => {
      const done = await replay(client, connection, amqpNamespace, request);
      const { last, ...counts } = done;
      const position = last && `${last.accountId}:${last.version}`;
      print(request.json ? JSON.stringify({ ...counts, last: position }) : describe(done, request));
      if (!done.complete) process.exitCode = INTERRUPTED;
    });
  });
});
