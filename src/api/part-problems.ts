// Finds the parts of the API that lack connections although PostgreSQL answers: a role or a server
// limits the number of connections, and others may hold them all.
import { type Pool, reasonOf } from '../shared/database.ts';
import type { Access } from './access/access.ts';
import type { Lanes } from './updates/lanes.ts';

/** One sentence per problem. Opens missing connections. */
export async function partProblems(lanes: Lanes, pools: readonly Pool[], access: Access): Promise<string[]> {
  const [problems, ...others] = await Promise.all([lanes.problems(), ...pools.map(problemOf)]);
  const other = others.find((problem) => problem !== undefined);
  const keys = access.problem();
  if (other !== undefined) problems.push(`no connection for anything but updates: ${other}`);
  if (keys !== undefined) problems.push(`API keys: ${keys}`);
  return problems;
}

/** Queries the pool only if it has no connection: a busy pool is healthy. */
async function problemOf(pool: Pool): Promise<string | undefined> {
  if (pool.totalCount > 0) return undefined;
  return pool.query('SELECT').then(() => undefined, reasonOf);
}
