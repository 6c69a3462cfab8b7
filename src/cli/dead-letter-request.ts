// Parses the command line of npm run dead-letters.
import { readArguments, UsageError } from './arguments.ts';
import { REASONS, type Reason } from './dead-letter.ts';
import type { Selection } from './dead-letter-queue.ts';

export const HELP = `usage: highload-balance dead-letters <command> [options]

  list                     shows dead letters, oldest first, and leaves them where they are
  put-back <which>         gives them to the worker again; no subscriber sees them
  discard <which> --yes    deletes them permanently

which letters, of those that are there when the command starts:
  --all                    every one (list: the default)
  --id ID                  those with this id, a hash of the content. May be given several times
  --reason REASON          ${REASONS.join(', ')}. May be given several times

options:
  --limit N                list: at most this many (1 to 1000; 20)
  --seconds N              stop after this time and report the progress (1 to 3600; 60)
  --json                   one JSON document on standard output
  --help                   this text

A forged letter reports a change that was never accepted, a malformed one is not an event: if put back, both are refused
again. Putting back letters of delivery-limit, expired and maxlen helps once their cause is fixed; the service also
publishes missing ledger entries again by itself.
Safe to kill: a letter is deleted only after it is in the worker's queue. While this runs, no one else sees the letters.

AMQP_URL and AMQP_NAMESPACE select the queue; without AMQP_URL, the broker of this clone's npm start.
exit code: 0 done; 1 not done, or not all of it; 2 the command line is wrong and nothing was done`;

const COMMANDS = ['list', 'put-back', 'discard'] as const;

export interface DeadLetterRequest {
  command: (typeof COMMANDS)[number];
  selection: Selection;
  limit: number;
  seconds: number;
  json: boolean;
}

/** @throws UsageError */
export function parseRequest(args: string[]): DeadLetterRequest | 'help' {
  const { values, positionals } = readArguments({ args, allowPositionals: true, options: OPTIONS });
  if (values.help) return 'help';
  const command = COMMANDS.find((name) => name === positionals[0]);
  if (!command || positionals.length !== 1) throw new UsageError(`Give one command: ${COMMANDS.join(', ')}.`);
  const { id: ids = [], reason: reasons = [], all = false } = values;
  const unknown = reasons.find((reason) => !isReason(reason));
  if (unknown !== undefined) throw new UsageError(`--reason ${unknown}: it must be one of ${REASONS.join(', ')}.`);
  const isNarrowed = ids.length + reasons.length > 0;
  if (all && isNarrowed) throw new UsageError('Give --all, or --id and --reason, not both.');
  if (command !== 'list' && !all && !isNarrowed) {
    throw new UsageError(`${command}: specify which letters: --all, --id or --reason.`);
  }
  if (command === 'discard' && !values.yes) {
    throw new UsageError('discard deletes letters permanently: check them with list, then add --yes.');
  }
  if (command !== 'discard' && values.yes) throw new UsageError('--yes is only for discard.');
  if (command !== 'list' && values.limit !== undefined) throw new UsageError('--limit is only for list.');
  return {
    command,
    selection: { ids, reasons: reasons.filter(isReason) },
    limit: whole('--limit', values.limit ?? '20', 1000),
    seconds: whole('--seconds', values.seconds ?? '60', 3600),
    json: values.json ?? false,
  };
}

const OPTIONS = {
  all: { type: 'boolean' },
  id: { type: 'string', multiple: true },
  reason: { type: 'string', multiple: true },
  yes: { type: 'boolean' },
  limit: { type: 'string' },
  seconds: { type: 'string' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const;

function isReason(text: string): text is Reason {
  return (REASONS as readonly string[]).includes(text);
}

function whole(option: string, text: string, max: number): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < 1 || value > max) {
    throw new UsageError(`${option} ${text}: it must be a whole number from 1 to ${max}.`);
  }
  return value;
}
