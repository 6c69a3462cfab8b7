// npm run keys: creates, lists and revokes API keys. A new token goes to standard output alone, and is shown this once.
// Exits 0 when done, 1 when refused or the database does not answer, 2 when called in a wrong way.
import { parseArgs } from 'node:util';
import pg from 'pg';
import { z } from 'zod';
import { readRuntime } from '../local/runtime.ts';
import { idOf, SCOPES, scope } from '../shared/api-key.ts';
import { actor } from '../shared/balance.ts';
import { RATE_LIMIT_MAX, readDatabaseSettings, SettingsError } from '../shared/config.ts';
import { connectionOptions, describeConnectionFailure } from '../shared/database.ts';
import { createKey, KeyProblem, listKeys, revokeKey, type StoredKey } from './api-keys.ts';
import { UsageError } from './command.ts';

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

/** @throws UsageError */
function parse(args: string[]): Command | 'help' {
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

async function run(command: Command): Promise<void> {
  const { databaseUrl } = readDatabaseSettings({
    DATABASE_URL: process.env.DATABASE_URL || readRuntime()?.databaseUrl,
  });
  const client = new pg.Client({
    ...connectionOptions(databaseUrl, 'keys'),
    statement_timeout: STATEMENT_TIMEOUT_MS,
    query_timeout: STATEMENT_TIMEOUT_MS + 1000,
  });
  client.on('error', () => {}); // the query under way reports the same loss
  try {
    await client.connect();
  } catch (error) {
    throw new SettingsError(describeConnectionFailure(databaseUrl, error));
  }
  try {
    await command(client);
  } catch (error) {
    throw explain(error);
  } finally {
    await client.end();
  }
}

function explain(error: unknown): unknown {
  const { code } = error as { code?: string };
  if (code === '42P01') return new KeyProblem('the database has no table for keys yet: run migrate first');
  if (code === '42501') return new KeyProblem("this database user may not write keys: use the owner's DATABASE_URL");
  if (error instanceof pg.DatabaseError) return new KeyProblem(`the database refused: ${error.message}`);
  return error;
}

try {
  const command = parse(process.argv.slice(2));
  if (command === 'help') console.log(HELP);
  else await run(command);
} catch (error) {
  if (error instanceof UsageError) {
    console.error(`${error.message}\n\n${HELP}`);
    process.exitCode = 2;
  } else if (error instanceof SettingsError || error instanceof KeyProblem) {
    console.error(error.message);
    process.exitCode = 1;
  } else throw error;
}
