// What the command line of npm run dead-letters asks for.
import { parseArgs } from 'node:util';
import { UsageError } from './command.ts';
import { REASONS, type Reason } from './dead-letter.ts';
import type { Selection } from './dead-letter-queue.ts';

export const HELP = `usage: npm run dead-letters -- <command> [options]

  list                     shows dead letters, oldest first, and leaves them where they are
  put-back <which>         gives them to the worker once more; no subscriber sees them
  discard <which> --yes    deletes them for good

which letters, of those that are there when the command starts:
  --all                    every one (list: the default)
  --id ID                  those with this id, which is of the content. May be given several times
  --reason REASON          ${REASONS.join(', ')}. May be given several times

options:
  --limit N                list: how many at most (1 to 1000; 20)
  --seconds N              stop after this time and say how far it got (1 to 3600; 60)
  --json                   one JSON document on standard output
  --help                   this text

A forged letter tells of a change that was never accepted, a malformed one is no event: put back, they are refused
again and return. Letters of delivery-limit are worth it, once what kept the worker from taking them is mended.
Safe to kill: a letter is deleted only after it is in the worker's queue. While this runs, nobody else sees the letters.

AMQP_URL and AMQP_NAMESPACE say where; without AMQP_URL, the broker of this clone's npm start.
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
  const { values, positionals } = parseStrictly(args);
  if (values.help) return 'help';
  const command = COMMANDS.find((name) => name === positionals[0]);
  if (!command || positionals.length !== 1) throw new UsageError(`Give one command: ${COMMANDS.join(', ')}.`);
  const { id: ids = [], reason: reasons = [], all = false } = values;
  const unknown = reasons.find((reason) => !isReason(reason));
  if (unknown !== undefined) throw new UsageError(`--reason ${unknown}: it is one of ${REASONS.join(', ')}.`);
  const isNarrowed = ids.length + reasons.length > 0;
  if (all && isNarrowed) throw new UsageError('Give --all, or --id and --reason, not both.');
  if (command !== 'list' && !all && !isNarrowed) {
    throw new UsageError(`${command}: say which letters: --all, --id or --reason.`);
  }
  if (command === 'discard' && !values.yes) {
    throw new UsageError('discard deletes letters for good: look at them with list, then add --yes.');
  }
  if (command !== 'discard' && values.yes) throw new UsageError('--yes belongs to discard.');
  if (command !== 'list' && values.limit !== undefined) throw new UsageError('--limit belongs to list.');
  return {
    command,
    selection: { ids, reasons: reasons.filter(isReason) },
    limit: whole('--limit', values.limit ?? '20', 1000),
    seconds: whole('--seconds', values.seconds ?? '60', 3600),
    json: values.json ?? false,
  };
}

function parseStrictly(args: string[]) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        all: { type: 'boolean' },
        id: { type: 'string', multiple: true },
        reason: { type: 'string', multiple: true },
        yes: { type: 'boolean' },
        limit: { type: 'string' },
        seconds: { type: 'string' },
        json: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function isReason(text: string): text is Reason {
  return (REASONS as readonly string[]).includes(text);
}

function whole(option: string, text: string, max: number): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < 1 || value > max) {
    throw new UsageError(`${option} ${text}: it is a whole number from 1 to ${max}.`);
  }
  return value;
}
