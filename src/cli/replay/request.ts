// What the command line of replay asks for.
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { accountId, moment, version } from '../../shared/balance.ts';
import { UsageError } from '../command.ts';
import type { Position, Selection } from './changes.ts';

export const HELP = `usage: highload-balance replay <where to> <what> [options]

Publishes changes of the past again, as the events that they were, with the header x-replayed: true. Only reads the database.

where to:
  --queue NAME             into this queue alone
  --exchange               to all subscribers; what they know already they drop by its version
  --hand-over              with --queue and --all: the queue is made where there is none, and bound to the exchange when it holds
                           the past. What happens meanwhile is kept and put in between: no event is missing.
what, narrowed further by each option:
  --all                    everything
  --account ID             of one account
  --from-version N         versions from N on
  --to-version N           versions up to N
  --from TIME              created at TIME or later, such as 2026-11-23T19:43:56Z
  --to TIME                created before TIME

options:
  --rate N                 events a second at most (1 to 100000; 2000)
  --after ACCOUNT:VERSION  go on behind this change: where an interrupted replay says it got to
  --json                   one JSON document on standard output
  --help                   this text

Events come by account and version. Progress is told on standard error. Ctrl-C ends it, and tells where it got to; what was
published until then stays published, and repeating it does no harm.

DATABASE_URL, AMQP_URL and AMQP_NAMESPACE say where; without, those of this clone's npm start.
exit code: 0 done; 1 not done, or not all of it; 2 the command line is wrong and nothing was done; 130 interrupted`;

export const RATE_MAX = 100_000;

export interface ReplayRequest {
  /** Undefined: to the exchange. */
  queue: string | undefined;
  handOver: boolean;
  selection: Selection;
  after: Position | undefined;
  /** Events a second. */
  rate: number;
  json: boolean;
}

const whole = (max: number) =>
  z.string().regex(/^\d+$/, `must be a whole number from 1 to ${max}`).transform(Number).pipe(z.int().min(1).max(max));
const atVersion = z.string().regex(/^\d+$/, 'must be a version, such as 1').transform(Number).pipe(version);
/** AMQP's own limit. */
const queueName = z.string().refine((name) => {
  const { length } = Buffer.from(name);
  return length >= 1 && length <= 255;
}, 'must be the name of a queue, 1 to 255 bytes');

/** @throws UsageError */
export function parseRequest(args: string[]): ReplayRequest | 'help' {
  const values = parseStrictly(args);
  if (values.help) return 'help';
  const { exchange = false, 'hand-over': handOver = false, all = false } = values;
  const queue = check('--queue', queueName, values.queue);
  if ((queue === undefined) !== exchange) throw new UsageError('Say where to: --queue NAME, or --exchange.');
  const selection: Selection = {
    accountId: check('--account', accountId, values.account),
    fromVersion: check('--from-version', atVersion, values['from-version']),
    toVersion: check('--to-version', atVersion, values['to-version']),
    from: check('--from', moment(), values.from),
    to: check('--to', moment(), values.to),
  };
  const isNarrowed = Object.values(selection).some((bound) => bound !== undefined);
  if (all === isNarrowed) throw new UsageError('Say what: --all, or any of the options that narrow it, not both.');
  const { fromVersion = 0, toVersion = fromVersion, from, to } = selection;
  if (fromVersion > toVersion) throw new UsageError('--from-version is above --to-version: nothing lies between them.');
  if (from && to && from >= to) throw new UsageError('--from is not before --to: nothing lies between them.');
  if (handOver && (queue === undefined || !all)) {
    throw new UsageError('--hand-over goes with --queue and --all: what comes after it is everything, too.');
  }
  if (handOver && values.after !== undefined) {
    throw new UsageError('--hand-over begins anew: what happened since to accounts before --after would be missing.');
  }
  return {
    queue,
    handOver,
    selection,
    after: positionOf(values.after),
    rate: check('--rate', whole(RATE_MAX), values.rate) ?? 2000,
    json: values.json ?? false,
  };
}

function positionOf(text: string | undefined): Position | undefined {
  if (text === undefined) return undefined;
  const colon = text.lastIndexOf(':'); // an account id may have some itself
  const id = accountId.safeParse(text.slice(0, colon));
  const number = atVersion.safeParse(text.slice(colon + 1));
  if (!id.success || !number.success) throw new UsageError(`--after ${text}: it must be ACCOUNT:VERSION, as alice:12.`);
  return { accountId: id.data, version: number.data };
}

function parseStrictly(args: string[]) {
  try {
    return parseArgs({
      args,
      options: {
        queue: { type: 'string' },
        exchange: { type: 'boolean' },
        'hand-over': { type: 'boolean' },
        all: { type: 'boolean' },
        account: { type: 'string' },
        'from-version': { type: 'string' },
        'to-version': { type: 'string' },
        from: { type: 'string' },
        to: { type: 'string' },
        rate: { type: 'string' },
        after: { type: 'string' },
        json: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    }).values;
  } catch (cause) {
    throw new UsageError((cause as Error).message, { cause });
  }
}

function check<Schema extends z.ZodType>(option: string, schema: Schema, value: string | undefined) {
  if (value === undefined) return undefined;
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new UsageError(`${option} ${value}: it ${result.error.issues[0]?.message}.`);
}
