// The users of RabbitMQ and what each may do, as definitions that it loads at startup. Each has
// what it needs and no more: the worker cannot publish events, a subscriber can neither read the
// ledger's queue nor write to an exchange of the service.
// https://www.rabbitmq.com/docs/access-control, https://www.rabbitmq.com/docs/definitions
import { createHash, randomBytes } from 'node:crypto';
import { topologyOf } from '../shared/topology.ts';
import type { Passwords } from './passwords.ts';

type Holder = keyof Passwords['broker'];

/** What queues of subscribers are called. RabbitMQ gives the second to those without a name. */
export const SUBSCRIBER_QUEUES = ['subscriber.', 'amq.gen-'];
/** Publishing to a queue by its name needs the right to write there. */
const DEFAULT_EXCHANGE = 'amq.default';
const ANY = '.*';

interface Rights {
  configure: string;
  write: string;
  read: string;
}

function rightsOf(namespace: string): Record<Holder, Rights> {
  const { eventsExchange, ledgerQueue, deadLetters, consoleQueues } = topologyOf(namespace);
  // Exchange and queue of the ledger have one name, and so have those of the dead letters.
  const own = [eventsExchange, ledgerQueue, deadLetters];
  const api = [...names(own), ...beginnings([consoleQueues])];
  const subscriber = beginnings(SUBSCRIBER_QUEUES);
  return {
    // To put a subscriber's queue aside, it publishes directly to it, and unbinds it.
    api: rights(api, [...api, ...names([DEFAULT_EXCHANGE]), ...subscriber], api),
    worker: rights(names(own), names([ledgerQueue, deadLetters]), names([ledgerQueue, deadLetters])),
    subscriber: rights(subscriber, subscriber, [...subscriber, ...names([eventsExchange])]),
    // A person: puts dead letters back, replays events to any queue, inspects everything.
    operator: { configure: ANY, write: ANY, read: ANY },
  };
}

/** What a person sees in the management plugin, and what the API reads from it. */
const TAGS: Record<Holder, string[]> = { api: ['monitoring'], worker: [], subscriber: [], operator: ['administrator'] };

export function rabbitmqDefinitions(passwords: Passwords['broker'], namespace: string): object {
  const users = Object.entries(passwords) as [Holder, string][];
  return {
    vhosts: [{ name: '/' }],
    users: users.map(([name, password]) => ({
      name,
      password_hash: passwordHash(password),
      hashing_algorithm: 'rabbit_password_hashing_sha256',
      tags: TAGS[name],
    })),
    permissions: Object.entries(rightsOf(namespace)).map(([user, rights]) => ({ user, vhost: '/', ...rights })),
  };
}

/** https://www.rabbitmq.com/docs/passwords#computing-password-hash */
function passwordHash(password: string): string {
  const salt = randomBytes(4);
  return Buffer.concat([salt, createHash('sha256').update(salt).update(password).digest()]).toString('base64');
}

const names = (texts: readonly string[]) => texts.map((text) => `${literal(text)}$`);
const beginnings = (texts: readonly string[]) => texts.map(literal);
const literal = (text: string) => text.replaceAll('.', '\\.');

const anyOf = (patterns: readonly string[]) => `^(${patterns.join('|')})`;

function rights(configure: string[], write: string[], read: string[]): Rights {
  return { configure: anyOf(configure), write: anyOf(write), read: anyOf(read) };
}
