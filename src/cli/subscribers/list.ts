// The state of subscribers' queues: which are bound, from RabbitMQ; which were put aside and what
// all of them missed, from the table missed.
import type { ChannelModel } from 'amqplib';
import { BrokerTimeout } from '../../shared/broker.ts';
import type { Management } from '../../shared/broker-management.ts';
import { askOnce } from '../../shared/channel.ts';
import type { Client } from '../../shared/database.ts';
import { argument, printable } from '../output.ts';
import { readKnown } from './management.ts';
import { type PassedOver, type PutAside, readPassedOver, readPutAside } from './missed.ts';

export interface ListedQueue {
  name: string;
  /** Of its bindings now; null if only the management plugin could report them. */
  routingKeys: string[] | null;
  /** null: RabbitMQ does not answer for it. */
  messages: number | null;
  exists: boolean;
  /** Set if it was put aside and its missed events are not delivered yet. */
  putAside: PutAside | null;
  /** What to run for it. */
  command: string | null;
}

export interface Listing {
  exchange: string;
  /** Whether all that are bound are among the queues: without the management plugin only those that were put aside. */
  isComplete: boolean;
  queues: ListedQueue[];
  passedOver: (PassedOver & { command: string })[];
}

export async function list(
  client: Client,
  connection: ChannelModel,
  exchange: string,
  management: Management | undefined,
): Promise<Listing> {
  const putAside = new Map((await readPutAside(client)).map((one) => [one.queue, one]));
  const passedOver = (await readPassedOver(client)).map((range) => ({
    ...range,
    command: `highload-balance replay --exchange --missed ${range.id}`,
  }));
  const known = management && (await readKnown(management, exchange));
  const bound = new Map(known?.bound.map(({ name, routingKeys }) => [name, routingKeys]));
  const queues: ListedQueue[] = [];
  for (const name of [...new Set([...bound.keys(), ...putAside.keys()])].sort()) {
    const state = known
      ? { exists: known.states.has(name), messages: known.states.get(name)?.messages ?? null }
      : await look(connection, name);
    const aside = putAside.get(name);
    queues.push({
      ...{ name, ...state, routingKeys: known ? (bound.get(name) ?? []) : null },
      putAside: aside ?? null,
      command: aside ? `highload-balance subscribers ${state.exists ? 'resume' : 'forget'} ${argument(name)}` : null,
    });
  }
  return { exchange, isComplete: known !== undefined, queues, passedOver };
}

/**
 * As AMQP reports it. For a missing queue RabbitMQ closes the channel; a silent one gives no
 * answer.
 */
async function look(connection: ChannelModel, name: string): Promise<Pick<ListedQueue, 'exists' | 'messages'>> {
  try {
    const { messageCount } = await askOnce(connection, 'asking for a queue', (channel) => channel.checkQueue(name));
    return { exists: true, messages: messageCount };
  } catch (error) {
    const { code } = error as { code?: number };
    if (code === 404) return { exists: false, messages: null };
    if (code === 405 || error instanceof BrokerTimeout) return { exists: true, messages: null };
    throw error;
  }
}

const shown = (routingKeys: readonly string[]) => printable(routingKeys.join(' '));

export function describe({ exchange, isComplete, queues, passedOver }: Listing): string {
  const lines = queues.flatMap(({ name, routingKeys, messages, exists, putAside, command }) => {
    const bound = routingKeys === null ? 'not known' : routingKeys.length > 0 ? shown(routingKeys) : 'not';
    const held = exists ? `${messages ?? 'an unknown number of'} messages` : 'does not exist';
    const first = `${printable(name)}: bound: ${bound}; ${held}`;
    if (!putAside) return [first];
    const { since, fromPosition, from, routingKeys: had } = putAside;
    return [
      first,
      `  put aside at ${since.toISOString()} (was bound: ${shown(had)}); misses events from position ${fromPosition} on, created at ${from.toISOString()}`,
      `  ${command}`,
    ];
  });
  if (!isComplete)
    lines.push(`Set AMQP_MANAGEMENT_URL to see which ${queues.length > 0 ? 'other ' : ''}queues are bound.`);
  else if (queues.length === 0) lines.push('no queue is bound');
  for (const { firstPosition, lastPosition, from, last, command } of passedOver) {
    lines.push(
      `passed over for all: positions ${firstPosition} to ${lastPosition}, created from ${from.toISOString()} to ${last.toISOString()}`,
      `  ${command}`,
    );
  }
  return [`${exchange}:`, ...lines].join('\n');
}
