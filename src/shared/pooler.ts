// Detects whether a pooler keeps one PostgreSQL session for each client (session mode), or lends
// any free session to each transaction or statement. In the latter case settings, prepared
// statements and the relay's lock are lost or belong to another client. Poolers do not report their
// mode; it shows when two clients take turns.
import type { ClientBase } from 'pg';

/** Why such a pooler is refused, in the words of UnfitServer. */
export const SESSION_LENT =
  'it is behind a pooler that gives each transaction a different session, so settings and locks are lost: connect directly, or give this service a pool in session mode (PgBouncer: pool_mode = session), and start it again';

const TURNS = 4;
/** A pool may have no session left for a second client: then it never gets its turn. */
const TRIAL_MS_MAX = 1000;

const BACKEND = { text: 'SELECT pg_catalog.pg_backend_pid() AS pid', query_timeout: TRIAL_MS_MAX };

/** A second client of the same pool, not connected yet, and how it is ended at once. */
export interface Rival {
  client: ClientBase;
  end(): void;
}

/**
 * URLs known to lead to a pooler that lends sessions, for the rest of the process: the next trial
 * may miss it by chance.
 */
const lending = new Set<string>();
/** By URL. However many connections are made at once, only one of them has rivals. */
const trials = new Map<string, Promise<boolean>>();

/**
 * Whether a pooler lends the session of a client to others. Never rejects.
 * @param client does nothing else meanwhile.
 * @param pid of the session that it had last.
 */
export async function isSessionLent(
  databaseUrl: string,
  client: ClientBase,
  pid: number,
  makeRival: () => Rival,
): Promise<boolean> {
  if (lending.has(databaseUrl)) return true;
  let trial = trials.get(databaseUrl);
  if (!trial) {
    trial = compete(client, pid, makeRival).finally(() => trials.delete(databaseUrl));
    trials.set(databaseUrl, trial);
  }
  const isLent = await trial;
  if (isLent) lending.add(databaseUrl);
  return isLent;
}

/**
 * Lets rivals, one after the other, compete for the session of a client. Leaves no trace in any of them.
 * - A pool that hands out first what came back last gives that session to the rival; one that takes turns gives the client
 *   another for its next statement; any other does one of both sooner or later.
 * - Several poolers may serve one address, each with sessions of its own: so each turn has a new rival.
 * - A session pooler never does, so `true` is certain. A rival that gets no turn, or a lost connection, says nothing: `false`.
 */
async function compete(client: ClientBase, pid: number, makeRival: () => Rival): Promise<boolean> {
  const deadlineMs = performance.now() + TRIAL_MS_MAX;
  try {
    for (let turn = 0; turn < TURNS; turn += 1) {
      for (let count = 0; count < 2; count += 1) if ((await sessionOf(client)) !== pid) return true;
      if ((await sessionOfRival(makeRival(), deadlineMs)) !== pid) continue;
      await sessionOf(client); // fails for a client that was disconnected: then the rival may have got its session
      return true;
    }
    return false;
  } catch {
    return false;
  }
}

async function sessionOfRival({ client, end }: Rival, deadlineMs: number): Promise<number> {
  const timer = setTimeout(end, deadlineMs - performance.now());
  try {
    await client.connect();
    return await sessionOf(client);
  } finally {
    clearTimeout(timer);
    end();
  }
}

async function sessionOf(client: ClientBase): Promise<number> {
  return (await client.query<{ pid: number }>(BACKEND)).rows[0]?.pid as number;
}
