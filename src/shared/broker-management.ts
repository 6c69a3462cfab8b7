// Reads what AMQP does not report, from RabbitMQ's management plugin at AMQP_MANAGEMENT_URL: which
// queues exist, and their bindings. https://www.rabbitmq.com/docs/http-api-reference
import { unescape as decode } from 'node:querystring';
import { brokerUrls, vhostOf } from './broker-urls.ts';
import { findings, z } from './zod.ts';

const TIMEOUT_MS = 5000;

const bindings = z.array(
  z.object({
    destination: z.string(),
    destination_type: z.enum(['queue', 'exchange']),
    routing_key: z.string(),
    arguments: z.record(z.string(), z.unknown()),
  }),
);

const queues = z.array(
  z.object({ name: z.string(), messages: z.number().optional(), consumers: z.number().optional() }),
);

/** A queue, with the keys by which an exchange routes to it. */
export interface BoundQueue {
  name: string;
  routingKeys: string[];
  /** One per binding: the same key with other arguments is a separate binding. */
  bindings: { routingKey: string; arguments: Record<string, unknown> }[];
}

/** The number of messages in a queue; null while the plugin does not know it yet. */
export interface QueueState {
  messages: number | null;
  consumers: number | null;
}

/** The address of the plugin, and the user. */
export interface Management {
  /** `http://user:password@host:15672`; without a user, the one of the first AMQP URL. */
  managementUrl: string;
  amqpUrl: string;
}

/**
 * The queues that are bound to an exchange, by name. Excludes queues bound through another
 * exchange.
 * @throws Error with a sentence if the plugin gives no such answer.
 */
export async function readBoundQueues(management: Management, exchange: string): Promise<BoundQueue[]> {
  const vhost = vhostOf(brokerUrls(management.amqpUrl)[0]);
  const answer = await ask(management, bindings, ['exchanges', vhost, exchange, 'bindings', 'source']);
  const bound = new Map<string, BoundQueue>();
  for (const { destination: name, destination_type, routing_key, arguments: its } of answer) {
    if (destination_type !== 'queue') continue;
    const queue = bound.get(name) ?? { name, routingKeys: [], bindings: [] };
    if (!queue.routingKeys.includes(routing_key)) queue.routingKeys.push(routing_key);
    queue.bindings.push({ routingKey: routing_key, arguments: its });
    bound.set(name, queue);
  }
  return [...bound.values()].sort((one, other) => (one.name < other.name ? -1 : 1));
}

/**
 * Every queue that there is, by name. @throws Error with a sentence if the plugin gives no such
 * answer.
 */
export async function readQueues(management: Management): Promise<Map<string, QueueState>> {
  const columns = { columns: 'name,messages,consumers' };
  const answer = await ask(management, queues, ['queues', vhostOf(brokerUrls(management.amqpUrl)[0])], columns);
  return new Map(answer.map(({ name, messages = null, consumers = null }) => [name, { messages, consumers }]));
}

async function ask<Schema extends z.ZodType>(
  { managementUrl, amqpUrl }: Management,
  schema: Schema,
  path: readonly string[],
  parameters: Record<string, string> = {},
): Promise<z.infer<Schema>> {
  const amqp = new URL(brokerUrls(amqpUrl)[0]);
  const url = new URL(managementUrl);
  const [user, password] = url.username
    ? [url.username, url.password]
    : [amqp.username || 'guest', amqp.password || 'guest'];
  const authorization = `Basic ${Buffer.from(`${decode(user)}:${decode(password)}`).toString('base64')}`;
  const pathname = [url.pathname.replace(/\/$/, ''), 'api', ...path.map(encodeURIComponent)].join('/');
  Object.assign(url, { username: '', password: '', pathname, search: new URLSearchParams(parameters).toString() });
  const failed = (cause: Error) => {
    const { message } = (cause.cause as Error | undefined) ?? cause; // fetch itself only reports that it failed
    throw new Error(`RabbitMQ's management at ${url.origin} does not answer: ${message}`, { cause });
  };
  const response = await fetch(url, { headers: { authorization }, signal: AbortSignal.timeout(TIMEOUT_MS) }).catch(
    failed,
  );
  if (!response.ok) throw new Error(`RabbitMQ's management at ${url.origin} answered ${response.status}`);
  const answer = parsed(await response.text().catch(failed));
  const result = schema.safeParse(answer);
  if (result.success) return result.data;
  const what = answer === undefined ? 'the answer is not JSON' : findings(result.error);
  throw new Error(
    `The server at ${url.origin} is not RabbitMQ's management plugin, or an unknown version of it: ${what}`,
  );
}

/** Undefined where it is not JSON. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
