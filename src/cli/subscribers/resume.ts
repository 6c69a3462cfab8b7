// Delivers the events that a queue missed since it was put aside, and binds it again. The note of
// what it missed stays until all of it is delivered, so an interrupted resume can be run again.
import type { ChannelModel } from 'amqplib';
import { BrokerTimeout } from '../../shared/broker.ts';
import type { Management } from '../../shared/broker-management.ts';
import type { Change } from '../../shared/change.ts';
import { askOnce } from '../../shared/channel.ts';
import { SettingsError } from '../../shared/config.ts';
import type { Client } from '../../shared/database.ts';
import { isRouted } from '../../shared/topic.ts';
import { isOfDatabase } from '../command.ts';
import { RATE_MAX } from '../options.ts';
import { argument } from '../output.ts';
import { startProgress } from '../progress.ts';
import { readChanges } from '../replay/changes.ts';
import { beginHandOver } from '../replay/hand-over.ts';
import type { Selection } from '../replay/page.ts';
import { createReplayPublisher, replayed } from '../replay/publisher.ts';
import { readKnown } from './management.ts';
import { checkMayNote, lockQueue, noteDelivered, noteEnd, type PutAside, readPutAside } from './missed.ts';

/**
 * A position is assigned after the clock was read, in the same statement: a higher position can
 * have an earlier time, by at most the duration of a statement.
 */
const MARGIN_MS = 60_000;

export interface ResumeOptions {
  exchange: string;
  queue: string;
  /** Undefined: since the queue was put aside. */
  from: Date | undefined;
  /** Events a second. */
  rate: number;
  /** Undefined: only the bindings that it had are known, not those that it has by now. */
  management: Management | undefined;
  signal: AbortSignal;
}

export interface Resumed {
  queue: string;
  routingKeys: string[];
  /** Created since then. */
  from: Date;
  /** Past events that the queue has accepted. */
  published: number;
  /** Changes that were looked at for them. */
  scanned: number;
  /** Messages that were published meanwhile. */
  handedOver: number;
  complete: boolean;
}

/** @throws SettingsError that says why not; then the queue is unchanged, or put aside as before. */
export async function resume(client: Client, connection: ChannelModel, options: ResumeOptions): Promise<Resumed> {
  const { exchange, queue, rate, signal } = options;
  await checkMayNote(client);
  await lockQueue(client, queue);
  const [putAside] = await readPutAside(client, queue);
  if (!putAside) throw new SettingsError(`The queue ${queue} was not put aside: it is not known to miss anything.`);
  await findQueue(connection, queue);
  const routingKeys = [...new Set([...putAside.routingKeys, ...(await boundNow(options))])];
  const from = options.from ?? new Date(putAside.from.getTime() - MARGIN_MS);
  const done: Resumed = { queue, routingKeys, from, published: 0, scanned: 0, handedOver: 0, complete: false };
  const target = { exchange: '', routingKey: queue };
  const progress = startProgress(() => `${done.published} events published, ${done.scanned} changes looked at`);
  try {
    await tryOne(client, connection, done, signal);
    const publisher = await createReplayPublisher(connection, target, rate, signal);
    const keeping = await beginHandOver(connection, exchange, queue, { bound: routingKeys, unbound: routingKeys });
    for await (const { changes, scanned } of dueChanges(client, done)) {
      const before = done.published;
      await publisher.publish(changes.map(replayed), (count) => {
        done.published = before + count;
      });
      done.scanned += scanned;
      signal.throwIfAborted();
    }
    const fast = await createReplayPublisher(connection, target, RATE_MAX, signal);
    done.handedOver = await keeping.finish(fast, () => noteEnd(client, putAside.ids));
    await noteDelivered(client, putAside.ids);
    done.complete = true;
  } catch (error) {
    const message = `${(error as Error).message} ${AGAIN}`;
    if (isOfDatabase(error)) throw new SettingsError(`PostgreSQL: ${error.message}. ${AGAIN}`);
    if (error instanceof SettingsError) throw new SettingsError(message);
    if (!signal.aborted) throw new Error(message, { cause: error });
  } finally {
    progress.end();
  }
  return done;
}

export const AGAIN = 'What the queue missed is still noted: run it again, duplicates do no harm.';

async function findQueue(connection: ChannelModel, queue: string): Promise<void> {
  try {
    await askOnce(connection, 'finding the queue', (channel) => channel.checkQueue(queue));
  } catch (error) {
    const { code } = error as { code?: number };
    if (error instanceof BrokerTimeout) throw new SettingsError(silent(queue));
    if (code !== 404 && code !== 405) throw error;
    const why = code === 404 ? 'does not exist any more' : 'belongs to one connection, whose end deletes it';
    throw new SettingsError(
      `The queue ${queue} ${why}. If its missed events are not needed: highload-balance subscribers forget ${argument(queue)}`,
    );
  }
}

const silent = (queue: string) => `The queue ${queue} still accepts nothing: RabbitMQ does not answer for it.`;

/** A consumer that declares and binds its queue at each connection may have bound it since. */
async function boundNow({ management, exchange, queue }: ResumeOptions): Promise<string[]> {
  if (!management) return [];
  return (await readKnown(management, exchange)).bound.find(({ name }) => name === queue)?.routingKeys ?? [];
}

/**
 * Checks that the queue accepts events, before anything is changed, by publishing the first due
 * event, which is delivered again later.
 */
async function tryOne(client: Client, connection: ChannelModel, due: Resumed, signal: AbortSignal): Promise<void> {
  for await (const { changes } of dueChanges(client, due)) {
    const [first] = changes;
    signal.throwIfAborted();
    if (!first) continue;
    const target = { exchange: '', routingKey: due.queue };
    const publisher = await createReplayPublisher(connection, target, RATE_MAX, signal);
    await publisher.publish([replayed(first)]).catch((error: Error) => {
      throw error instanceof BrokerTimeout ? new SettingsError(silent(due.queue)) : error;
    });
    return;
  }
}

async function* dueChanges(
  client: Client,
  { from, routingKeys }: Resumed,
): AsyncGenerator<{ changes: Change[]; scanned: number }> {
  const selection: Selection = { ...NO_BOUNDS, from };
  for await (const { changes, scanned } of readChanges(client, selection, undefined)) {
    yield { changes: changes.filter(({ type }) => routingKeys.some((key) => isRouted(key, type))), scanned };
  }
}

const NO_BOUNDS = { accountId: undefined, fromVersion: undefined, toVersion: undefined, to: undefined };

/** @returns the notes that were removed. @throws SettingsError if there were none. */
export async function forget(client: Client, queue: string): Promise<PutAside> {
  await checkMayNote(client);
  await lockQueue(client, queue);
  const [putAside] = await readPutAside(client, queue);
  if (!putAside) throw new SettingsError(`There is no note about the queue ${queue}.`);
  await noteDelivered(client, putAside.ids);
  return putAside;
}
