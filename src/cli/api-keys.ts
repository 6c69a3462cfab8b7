// The table of API keys, for the command that is its only writer.
import type pg from 'pg';
import { ACTIVE_KEYS_MAX, ACTIVE_KEYS_OF_ACTOR_MAX, createToken, hashOf, type Scope } from '../shared/api-key.ts';
import { EXPIRY_MS_MAX, type Expiry } from './expires-option.ts';

export interface StoredKey {
  id: string;
  actor: string;
  scopes: Scope[];
  /** Its own limit in a window; null: the setting. */
  rateLimit: number | null;
  /** It covers the accounts whose id begins with this; null: all. */
  accountPrefix: string | null;
  createdAt: Date;
  expiresAt: Date | null;
  /** To about a minute. */
  lastUsedAt: Date | null;
  revokedAt: Date | null;
}

export interface WantedKey {
  actor: string;
  scopes: readonly Scope[];
  rateLimit?: number | undefined;
  accountPrefix?: string | undefined;
  /** Without it the key does not expire. */
  expiry?: Expiry | undefined;
}

/** Thrown when the key cannot be made or found; says what to do. Nothing was changed. */
export class KeyProblem extends Error {
  override name = 'KeyProblem';
}

const COLUMNS = `
  key_id AS id, actor, scopes, rate_limit AS "rateLimit", account_prefix AS "accountPrefix", created_at AS "createdAt",
  expires_at AS "expiresAt", last_used_at AS "lastUsedAt", revoked_at AS "revokedAt"`;
const IS_ACTIVE = `revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())`;

// Two commands at once count one after the other. Readers do not wait for it.
const LOCK = 'LOCK TABLE api_key IN SHARE ROW EXCLUSIVE MODE';
const COUNT = `
  SELECT count(*) AS active, coalesce(array_agg(key_id ORDER BY created_at) FILTER (WHERE actor = $1), '{}') AS "ofActor",
         clock_timestamp() AS now
  FROM api_key
  WHERE ${IS_ACTIVE}`;
const INSERT = `
  INSERT INTO api_key (key_id, actor, scopes, rate_limit, token_sha256, account_prefix, expires_at)
  VALUES ($1, $2, $3, $4, $5, $6, $7)
  RETURNING ${COLUMNS}`;

/** By the clock of the database, which decides when it is over. @throws KeyProblem */
function expiresAt(expiry: Expiry, now: Date): Date {
  const at = 'at' in expiry ? expiry.at : new Date(now.getTime() + expiry.afterMs);
  if (at <= now)
    throw new KeyProblem(`--expires ${at.toISOString()}: it is already ${now.toISOString()}. Give a later time.`);
  if (at.getTime() > now.getTime() + EXPIRY_MS_MAX)
    throw new KeyProblem(`--expires ${at.toISOString()}: give a time within ten years, or omit the option.`);
  return at;
}

/**
 * @returns the key, and the token, which cannot be read again. @throws KeyProblem when there are
 * enough of them.
 */
export async function createKey(client: pg.ClientBase, wanted: WantedKey): Promise<{ key: StoredKey; token: string }> {
  const { id, token } = createToken();
  try {
    await client.query('BEGIN');
    await client.query(LOCK);
    const { active, ofActor, now } = (await client.query(COUNT, [wanted.actor])).rows[0];
    if (ofActor.length >= ACTIVE_KEYS_OF_ACTOR_MAX) {
      throw new KeyProblem(
        `${wanted.actor} has ${ofActor.length} active keys, ${ofActor.join(' and ')}, the maximum for one client. Revoke one first: npm run keys -- revoke ${ofActor[0]}`,
      );
    }
    if (active >= ACTIVE_KEYS_MAX) {
      throw new KeyProblem(`there are ${active} active keys, the maximum for this service. Revoke one first.`);
    }
    const { actor, scopes, rateLimit = null, accountPrefix = null, expiry } = wanted;
    const values = [id, actor, scopes, rateLimit, hashOf(token), accountPrefix, expiry ? expiresAt(expiry, now) : null];
    const key: StoredKey = (await client.query(INSERT, values)).rows[0];
    await client.query('COMMIT');
    return { key, token };
  } catch (error) {
    await client.query('ROLLBACK').catch(() => {}); // the first failure is the one to report
    throw error;
  }
}

const LIST = `
  SELECT ${COLUMNS} FROM api_key
  WHERE (${IS_ACTIVE} OR $1) AND (actor = $2 OR $2 IS NULL)
  ORDER BY actor, created_at, key_id`;

/** By client, oldest first; revoked ones only when asked for. */
export async function listKeys(
  client: pg.ClientBase,
  wanted: { revokedToo: boolean; actor?: string | undefined },
): Promise<StoredKey[]> {
  return (await client.query<StoredKey>(LIST, [wanted.revokedToo, wanted.actor ?? null])).rows;
}

const REVOKE = `
  UPDATE api_key SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE key_id = $1
  RETURNING ${COLUMNS}`;

/** Idempotent. @throws KeyProblem when there is no such key. */
export async function revokeKey(client: pg.ClientBase, id: string): Promise<StoredKey> {
  const [key] = (await client.query<StoredKey>(REVOKE, [id])).rows;
  if (!key) throw new KeyProblem(`there is no key ${id}. List all keys: npm run keys -- list --all`);
  return key;
}
