// Parses the command line of replay.
import { accountId, moment, version } from '../../shared/balance.ts';
import { z } from '../../shared/zod.ts';
import { readArguments, UsageError } from '../arguments.ts';
import { check, rate, whole } from '../options.ts';
import type { Position, Selection } from './page.ts';

export const HELP = `usage: highload-balance replay <where to> <what> [options]

Publishes past changes again as their original events, with the header x-replayed: true. Only reads the database,
except with --missed.

where to:
  --queue NAME             only into this queue
  --exchange               to all subscribers; they drop what they already know by its version
  --hand-over              with --queue and --all: the queue is created if missing, and bound to the exchange when it
                           holds the past. Events published meanwhile are kept and inserted in between: none is
                           missing. On the primary only
what, narrowed further by each option:
  --all                    everything
  --account ID             of one account
  --from-version N         versions from N on
  --to-version N           versions up to N
  --from TIME              created at TIME or later, such as 2026-11-23T19:43:56Z
  --to TIME                created before TIME
  --missed N               with --exchange, and no selection: the range that was passed over for all subscribers,
                           as "highload-balance subscribers" lists it. It counts as delivered then, which needs the role of the API

options:
  --rate N                 events a second at most (1 to 100000; 2000)
  --after ACCOUNT:VERSION  continue after this change: the one an interrupted replay reports
  --json                   one JSON document on standard output
  --help                   this text

Events come by account and version. Progress is reported on standard error. Ctrl-C ends it and reports how far it
got; what was published until then stays published, and duplicates do no harm. Works on a standby too, for what it
has replayed, and says so.

DATABASE_URL, AMQP_URL and AMQP_NAMESPACE select the servers; without them, those of this clone's npm start.
exit code: 0 done; 1 not done, or not all of it; 2 the command line is wrong and nothing was done; 130 interrupted`;

export interface ReplayRequest {
  /** Undefined: to the exchange. */
  queue: string | undefined;
  handOver: boolean;
  selection: Selection;
  /** The number of a range that was passed over: it is the selection. */
  missed: number | undefined;
  after: Position | undefined;
  /** Events a second. */
  rate: number;
  json: boolean;
}

const VERSION = 'must be a version, such as 1';
const atVersion = z
  .string()
  .regex(/^\d{1,16}$/, VERSION)
  .transform(Number)
  .refine((value) => version.safeParse(value).success, VERSION);
/** AMQP's own limit. */
const queueName = z.string().refine((name) => {
  const { length } = Buffer.from(name);
  return length >= 1 && length <= 255;
}, 'must be the name of a queue, 1 to 255 bytes');

/** @throws UsageError */
export function parseRequest(args: string[]): ReplayRequest | 'help' {
  const values = readArguments({ args, options: OPTIONS }).values;
  if (values.help) return 'help';
  const { exchange = false, 'hand-over': handOver = false, all = false } = values;
  const queue = check('--queue', queueName, values.queue);
  if ((queue === undefined) !== exchange) throw new UsageError('Specify the destination: --queue NAME or --exchange.');
  const selection: Selection = {
    accountId: check('--account', accountId, values.account),
    fromVersion: check('--from-version', atVersion, values['from-version']),
    toVersion: check('--to-version', atVersion, values['to-version']),
    from: check('--from', moment(), values.from),
    to: check('--to', moment(), values.to),
  };
  const isNarrowed = Object.values(selection).some((bound) => bound !== undefined);
  const missed = check('--missed', whole(Number.MAX_SAFE_INTEGER), values.missed);
  if (missed !== undefined && (all || isNarrowed || !exchange)) {
    throw new UsageError('--missed is a selection of its own and needs --exchange: the range was missed by all.');
  }
  if (missed === undefined && all === isNarrowed)
    throw new UsageError('Specify a selection: --all, or any of the narrowing options, not both; or --missed.');
  const { fromVersion = 0, toVersion = fromVersion, from, to } = selection;
  if (fromVersion > toVersion) throw new UsageError('--from-version is above --to-version: nothing lies between them.');
  if (from && to && from >= to) throw new UsageError('--from is not before --to: nothing lies between them.');
  if (handOver && (queue === undefined || !all)) {
    throw new UsageError('--hand-over needs --queue and --all: what follows it is everything, too.');
  }
  if (handOver && values.after !== undefined) {
    throw new UsageError(
      '--hand-over starts from the beginning: newer changes of accounts before --after would be missing.',
    );
  }
  return {
    queue,
    handOver,
    selection,
    missed,
    after: positionOf(values.after),
    rate: rate(values.rate),
    json: values.json ?? false,
  };
}

function positionOf(text: string | undefined): Position | undefined {
  if (text === undefined) return undefined;
  const colon = text.lastIndexOf(':'); // an account id may contain colons
  const id = accountId.safeParse(text.slice(0, colon));
  const number = atVersion.safeParse(text.slice(colon + 1));
  if (!id.success || !number.success)
    throw new UsageError(`--after ${text}: it must be ACCOUNT:VERSION, such as alice:12.`);
  return { accountId: id.data, version: number.data };
}

const OPTIONS = {
  queue: { type: 'string' },
  exchange: { type: 'boolean' },
  'hand-over': { type: 'boolean' },
  all: { type: 'boolean' },
  account: { type: 'string' },
  'from-version': { type: 'string' },
  'to-version': { type: 'string' },
  from: { type: 'string' },
  to: { type: 'string' },
  missed: { type: 'string' },
  rate: { type: 'string' },
  after: { type: 'string' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const;
