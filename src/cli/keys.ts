// npm run keys: creates, lists and revokes API keys. A new token is only printed to standard
// output, once. Exits 0 when done, 1 when refused or the database does not answer, 2 for incorrect
// usage.
import type pg from 'pg';
import { accountPrefix, idOf, SCOPES, scope } from '../shared/api-key.ts';
import { actor } from '../shared/balance.ts';
import { RATE_LIMIT_MAX, SettingsError } from '../shared/config.ts';
import { isDenied } from '../shared/sqlstate.ts';
import { z } from '../shared/zod.ts';
import { createKey, KeyProblem, listKeys, revokeKey, type StoredKey } from './api-keys.ts';
import { readArguments, UsageError } from './arguments.ts';
import { runCommand, withDatabase } from './command.ts';
import { expiry } from './expires-option.ts';
import { whole } from './options.ts';
import { print } from './output.ts';
import { table } from './table.ts';

const HELP = `usage: highload-balance keys create CLIENT --scopes read,write,admin
                                   [--accounts PREFIX] [--expires WHEN] [--rate-limit N] [--json]
       highload-balance keys list [CLIENT] [--all] [--json]
       highload-balance keys revoke KEY_ID [--json]

create   a key for a client, whose name is recorded in the ledger with its changes. The token is shown only once.
         A client has two active keys at most: the one in use and the one that replaces it.
list     the active keys, with --all the revoked and expired ones too. Tokens are not stored, so they are not listed. The
         last use is accurate to about a minute.
revoke   ends a key, within 3 seconds in every process. Takes a token too, such as one that leaked.

--scopes       what the key may do, comma-separated; no scope includes another
                 read   read accounts, holds, transfers, histories and proofs
                 write  updates, transfers, reversals and holds
                 admin  create and change accounts
--accounts     the key only covers the accounts whose id begins with it, such as game1: for game1:alice. PREFIX ends
               in one of : . _ -, so that game1: does not cover game10:alice. Without it the key covers all accounts
--expires      when the key expires: a date (2027-06-30, meaning its start in UTC), a time (2027-06-30T12:00:00Z), or a
               duration from now (30m, 12h, 90d, 4w). Without it the key ends when it is revoked
--rate-limit   updates, or other requests, that it may make in RATE_LIMIT_WINDOW_S; RATE_LIMIT by default
--json         the result as one JSON object on standard output

The database is the one at DATABASE_URL, as its owner; unset, the one of this clone's npm start.`;

const STATEMENT_TIMEOUT_MS = 10_000;

const wantedScopes = z.array(scope, 'is missing').min(1);
const rateLimit = whole(RATE_LIMIT_MAX).optional();

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
  const { values, positionals } = readArguments({ args, allowPositionals: true, options: OPTIONS });
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
      only('scopes', 'accounts', 'expires', 'rate-limit');
      const wanted = {
        actor: check('CLIENT', actor, subject),
        scopes: [...new Set(check(`--scopes (${SCOPES.join(', ')})`, wantedScopes, values.scopes?.split(',')))],
        accountPrefix: check('--accounts', accountPrefix.optional(), values.accounts),
        expiry: check('--expires', expiry.optional(), values.expires),
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

const OPTIONS = {
  help: { type: 'boolean', short: 'h' },
  json: { type: 'boolean' },
  all: { type: 'boolean' },
  scopes: { type: 'string' },
  accounts: { type: 'string' },
  expires: { type: 'string' },
  'rate-limit': { type: 'string' },
} as const;

function check<Schema extends z.ZodType>(name: string, schema: Schema, value: unknown): z.infer<Schema> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new UsageError(`${name}: ${value === undefined ? 'is missing' : result.error.issues[0]?.message}`);
}

/** @throws SettingsError if the token is lost: nothing stores it. */
function printToken({ id }: StoredKey, text: string): void {
  try {
    print(text);
  } catch (error) {
    throw new SettingsError(`${(error as Error).message} The token is lost: revoke the key ${id}, and create another.`);
  }
}

const printText = {
  /** Only the token goes to standard output, so that it can be captured in a variable or a file. */
  created(key: StoredKey, token: string): void {
    const accounts = key.accountPrefix === null ? '' : `, for accounts that begin with ${key.accountPrefix}`;
    const end = key.expiresAt === null ? '' : `, until ${key.expiresAt.toISOString()}`;
    console.error(
      `Key ${key.id} of ${key.actor}: ${key.scopes.join(', ')}${accounts}${end}. Its token, shown only once:`,
    );
    printToken(key, token);
  },
  list(keys: StoredKey[]): void {
    const heads = ['key', 'client', 'scopes', 'accounts', 'rate limit', 'created', 'expires', 'last used', 'revoked'];
    const rows = keys.map((key) => [
      ...[key.id, key.actor, key.scopes.join(',')],
      key.accountPrefix === null ? 'all' : `${key.accountPrefix}*`,
      key.rateLimit ?? '-',
      ...[key.createdAt, key.expiresAt, key.lastUsedAt, key.revokedAt].map((time) => time?.toISOString() ?? '-'),
    ]);
    print(rows.length > 0 ? table([heads, ...rows]) : 'no keys');
  },
  revoked(key: StoredKey): void {
    print(`Key ${key.id} of ${key.actor} was revoked at ${key.revokedAt?.toISOString()}`);
  },
};

const printJson: typeof printText = {
  created: (key, token) => printToken(key, JSON.stringify({ ...key, token })),
  list: (keys) => print(JSON.stringify({ keys })),
  revoked: (key) => print(JSON.stringify(key)),
};

/** Refusals that mean more here than elsewhere. */
function explained(error: unknown): unknown {
  if (error instanceof KeyProblem) return new SettingsError(error.message);
  return isDenied(error)
    ? new SettingsError("this database user may not write keys: use the owner's DATABASE_URL")
    : error;
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
