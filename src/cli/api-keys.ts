// The table of API keys, for the command that is its only writer.
import type pg from 'pg';
import { ACTIVE_KEYS_MAX, ACTIVE_KEYS_OF_ACTOR_MAX, createToken, hashOf, type Scope } from '../shared/api-key.ts';

export interface StoredKey {
  id: string;
  actor: string;
  scopes: Scope[];
  /** Its own limit in a window; null is what the setting says. */
  rateLimit: number | null;
  createdAt: Date;
  revokedAt: Date | null;
}

/** Thrown when the key cannot be made or found; says what to do. Nothing was changed. */
export class KeyProblem extends Error {
  override name = 'KeyProblem';
}

const COLUMNS = `key_id AS id, actor, scopes, rate_limit AS "rateLimit", created_at AS "createdAt", revoked_at AS "revokedAt"`;

// Two commands at once count one after the other. Readers do not wait for it.
const LOCK = 'LOCK TABLE api_key IN SHARE ROW EXCLUSIVE MODE';
const COUNT = `
  SELECT count(*) AS active, coalesce(array_agg(key_id ORDER BY created_at) FILTER (WHERE actor = $1), '{}') AS "ofActor"
  FROM api_key
  WHERE revoked_at IS NULL`;
const INSERT = `
  INSERT INTO api_key (key_id, actor, scopes, rate_limit, token_sha256) VALUES ($1, $2, $3, $4, $5)
  RETURNING ${COLUMNS}`;

/** @returns the key, and the token that nobody can read again. @throws KeyProblem when there are enough of them. */
export async function createKey(
  client: pg.ClientBase,
  wanted: { actor: string; scopes: readonly Scope[]; rateLimit?: number | undefined },
): Promise<{ key: StoredKey; token: string }> {
  const { id, token } = createToken();
  try {
    await client.query('BEGIN');
    await client.query(LOCK);
    const { active, ofActor } = (await client.query(COUNT, [wanted.actor])).rows[0];
    if (ofActor.length >= ACTIVE_KEYS_OF_ACTOR_MAX) {
      throw new KeyProblem(
        `${wanted.actor} has ${ofActor.length} active keys, ${ofActor.join(' and ')}, the most that one client may have. Revoke one first: npm run keys -- revoke ${ofActor[0]}`,
      );
    }
    if (active >= ACTIVE_KEYS_MAX) {
      throw new KeyProblem(`there are ${active} active keys, the most that this service holds. Revoke one first.`);
    }
    const values = [id, wanted.actor, wanted.scopes, wanted.rateLimit ?? null, hashOf(token)];
    const key: StoredKey = (await client.query(INSERT, values)).rows[0];
    await client.query('COMMIT');
    return { key, token };
  } catch (error) {
    await client.query('ROLLBACK').catch(() => {}); // the first failure is the one to tell
    throw error;
  }
}

const LIST = `
  SELECT ${COLUMNS} FROM api_key
  WHERE (revoked_at IS NULL OR $1) AND (actor = $2 OR $2 IS NULL)
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

/** A repeat changes nothing. @throws KeyProblem when there is no such key. */
export async function revokeKey(client: pg.ClientBase, id: string): Promise<StoredKey> {
  const [key] = (await client.query<StoredKey>(REVOKE, [id])).rows;
  if (!key) throw new KeyProblem(`there is no key ${id}. See them all: npm run keys -- list --all`);
  return key;
}
