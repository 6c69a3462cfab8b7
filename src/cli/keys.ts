// npm run keys: creates, lists and revokes API keys. A new token goes to standard output alone, and is shown this once.
// Exits 0 when done, 1 when refused or the database does not answer, 2 when called in a wrong way.
import { parseArgs } from 'node:util';
import type pg from 'pg';
import { z } from 'zod';
import { idOf, SCOPES, scope } from '../shared/api-key.ts';
import { actor } from '../shared/balance.ts';
import { RATE_LIMIT_MAX, SettingsError } from '../shared/config.ts';
import { createKey, KeyProblem, listKeys, revokeKey, type StoredKey } from './api-keys.ts';
import { runCommand, UsageError, withDatabase } from './command.ts';

const HELP = `npm run keys -- create CLIENT --scopes read,write,admin [--rate-limit N] [--json]
npm run keys -- list [CLIENT] [--all] [--json]
npm run keys -- revoke KEY_ID [--json]

create   a key for a client, whose name stands in the ledger beside what it changes. The token is shown this once.
         A client has two active keys at most: the one in use and the one that replaces it.
list     the active keys, with --all the revoked ones too. Tokens are not stored, so they are not listed.
revoke   ends a key, within 3 seconds in every process. Takes a token too, such as one that leaked.

--scopes       what the key may do, comma-separated; none includes another
                 read   read accounts and their histories
                 write  update balances
                 admin  create and change accounts
--rate-limit   updates, or other requests, that it may make in RATE_LIMIT_WINDOW_S; without it RATE_LIMIT counts
--json         the result as one JSON object on standard output

The database is the one at DATABASE_URL, as its owner; unset, the one of this clone's npm start.`;

const STATEMENT_TIMEOUT_MS = 10_000;

const wantedScopes = z.array(scope, 'is missing').min(1);
const rateLimit = z.coerce.number().int().min(1).max(RATE_LIMIT_MAX).optional();

type Command = (client: pg.Client) => Promise<void>;

/** @throws UsageError with the help */
function parse(args: string[]): Command | 'help' {
  try {
    return parseCommand(args);
  } catch (error) {
    throw error instanceof UsageError ? new UsageError(`${error.message}\n\n${HELP}`) : error;
  }
}

function parseCommand(args: string[]): Command | 'help' {
  const { values, positionals } = parseOptions(args);
  if (values.help) return 'help';
  const [name, subject, ...rest] = positionals;
  const print = values.json ? printJson : printText;
  const only = (...known: string[]) => {
    const other = Object.keys(values).find((option) => option !== 'json' && !known.includes(option));
    if (other) throw new UsageError(`${name} does not take --${other}`);
    if (rest.length > 0) throw new UsageError(`one argument too many: ${rest[0]}`);
  };
  switch (name) {
    case 'create': {
      only('scopes', 'rate-limit');
      const wanted = {
        actor: check('CLIENT', actor, subject),
        scopes: [...new Set(check(`--scopes (${SCOPES.join(', ')})`, wantedScopes, values.scopes?.split(',')))],
        rateLimit: check('--rate-limit', rateLimit, values['rate-limit']),
      };
      return async (client) => {
        const { key, token } = await createKey(client, wanted);
        print.created(key, token);
      };
    }
    case 'list': {
      only('all');
      const wanted = { revokedToo: values.all ?? false, actor: check('CLIENT', actor.optional(), subject) };
      return async (client) => print.list(await listKeys(client, wanted));
    }
    case 'revoke': {
      only();
      if (!subject) throw new UsageError('revoke needs a KEY_ID: see npm run keys -- list');
      return async (client) => print.revoked(await revokeKey(client, idOf(subject) ?? subject));
    }
    default:
      throw new UsageError(name ? `there is no command ${name}` : 'a command is missing: create, list or revoke');
  }
}

function parseOptions(args: string[]) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        help: { type: 'boolean', short: 'h' },
        json: { type: 'boolean' },
        all: { type: 'boolean' },
        scopes: { type: 'string' },
        'rate-limit': { type: 'string' },
      },
    });
  } catch (error) {
    throw new UsageError((error as Error).message, { cause: error });
  }
}

function check<Schema extends z.ZodType>(name: string, schema: Schema, value: unknown): z.infer<Schema> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new UsageError(`${name}: ${value === undefined ? 'is missing' : result.error.issues[0]?.message}`);
}

const printText = {
  /** The token alone on standard output, so that it can go straight into a variable or a file. */
  created(key: StoredKey, token: string): void {
    console.error(`Key ${key.id} of ${key.actor}: ${key.scopes.join(', ')}. Its token, shown this once:`);
    console.log(token);
  },
  list(keys: StoredKey[]): void {
    const rows = keys.map(({ id, actor, scopes, rateLimit, createdAt, revokedAt }) => ({
      key: id,
      client: actor,
      scopes: scopes.join(','),
      'rate limit': rateLimit ?? '',
      created: createdAt.toISOString(),
      revoked: revokedAt?.toISOString() ?? '',
    }));
    if (rows.length > 0) console.table(rows);
    else console.log('no keys');
  },
  revoked(key: StoredKey): void {
    console.log(`Key ${key.id} of ${key.actor} is revoked since ${key.revokedAt?.toISOString()}`);
  },
};

const printJson: typeof printText = {
  created: (key, token) => console.log(JSON.stringify({ ...key, token })),
  list: (keys) => console.log(JSON.stringify({ keys })),
  revoked: (key) => console.log(JSON.stringify(key)),
};

/** Refusals that mean more here than elsewhere. */
function explained(error: unknown): unknown {
  if (error instanceof KeyProblem) return new SettingsError(error.message);
  const isDenied = (error as { code?: string }).code === '42501';
  return isDenied ? new SettingsError("this database user may not write keys: use the owner's DATABASE_URL") : error;
}

await runCommand(async () => {
  const command = parse(process.argv.slice(2));
  if (command === 'help') return console.log(HELP);
  const work = (client: pg.Client) =>
    command(client).catch((error) => {
      throw explained(error);
    });
  await withDatabase('keys', work, { statementTimeoutMs: STATEMENT_TIMEOUT_MS });
});
