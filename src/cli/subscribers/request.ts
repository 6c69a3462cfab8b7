// Parses the command line of subscribers.
import { moment } from '../../shared/balance.ts';
import { readArguments, UsageError } from '../arguments.ts';
import { check, rate } from '../options.ts';

export const HELP = `usage: highload-balance subscribers [command] [options]

A queue that accepts no events holds up all subscribers until the relay puts it aside: it unbinds the queue,
and notes the position from which it misses events. Events that subscribers have waited for too long are
passed over for all of them, and noted as well.

  list                     (the default) the queues that are bound to the exchange, those that were put aside,
                           and the ranges that were passed over
  resume QUEUE             delivers the events that a queue missed, and binds it again. Events published meanwhile
                           follow in order: none is missing, but some are delivered twice
  forget QUEUE             discards the note: the queue's missed events are not needed, because it was deleted or
                           got them in another way

resume:
  --from TIME              events created at TIME or later, instead of from a minute before the first missed event.
                           For a queue that lost messages, or if the clock of the database was set back meanwhile
  --rate N                 events a second at most (1 to 100000; 2000)

options:
  --json                   one JSON document on standard output
  --help                   this text

A passed-over range is delivered to all subscribers by "highload-balance replay --exchange --missed N": see list.
resume first sends one event, and changes nothing if the queue does not accept it. If it is interrupted or fails,
nothing is lost: run it again, duplicates do no harm.

DATABASE_URL, AMQP_URL and AMQP_NAMESPACE select the servers; without them, those of this clone's npm start.
list only reads; resume and forget need the role of the API. AMQP_MANAGEMENT_URL is the address of RabbitMQ's
management plugin, the only source for which queues are bound.
exit code: 0 done; 1 not done, or not all of it; 2 the command line is wrong and nothing was done; 130 interrupted`;

export type SubscribersRequest = { json: boolean } & (
  | { command: 'list' }
  | { command: 'resume'; queue: string; from: Date | undefined; rate: number }
  | { command: 'forget'; queue: string }
);

/** @throws UsageError */
export function parseRequest(args: string[]): SubscribersRequest | 'help' {
  const { values, positionals } = readArguments({ args, allowPositionals: true, options: OPTIONS });
  if (values.help) return 'help';
  const [command = 'list', queue, ...rest] = positionals;
  const { json = false } = values;
  if (command !== 'list' && command !== 'resume' && command !== 'forget') {
    throw new UsageError(`There is no command ${command}. Use list, resume or forget.`);
  }
  const tooMany = command === 'list' ? queue : rest[0];
  if (tooMany !== undefined) throw new UsageError(`One argument too many: ${tooMany}.`);
  if (command !== 'resume' && (values.from ?? values.rate) !== undefined) {
    throw new UsageError('--from and --rate are only for resume.');
  }
  if (command === 'list') return { command, json };
  if (!queue) throw new UsageError(`${command}: specify the queue. highload-balance subscribers lists them.`);
  if (command === 'forget') return { command, queue, json };
  return { command, queue, json, from: check('--from', moment(), values.from), rate: rate(values.rate) };
}

const OPTIONS = {
  from: { type: 'string' },
  rate: { type: 'string' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const;
