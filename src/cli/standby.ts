// Commands that only read also work on a standby, which takes their load off the primary. It may lag, so they say so.
import type pg from 'pg';

export interface Standby {
  /** Commit time, ISO 8601, of the last transaction that it has replayed; null where it has replayed none since its start. */
  replayedUntil: string | null;
}

const STANDBY = `SELECT pg_last_xact_replay_timestamp() AS "replayedUntil" WHERE pg_is_in_recovery()`;

/** Undefined if the server is not a standby. */
export async function standbyOf(client: pg.Client): Promise<Standby | undefined> {
  const { rows } = await client.query<{ replayedUntil: Date | null }>(STANDBY);
  return rows[0] && { replayedUntil: rows[0].replayedUntil?.toISOString() ?? null };
}

/** A sentence for the reader of the command's output. */
export function describeStandby({ replayedUntil }: Standby): string {
  const until = replayedUntil === null ? '' : ` Its last replayed transaction was committed at ${replayedUntil}.`;
  return `The database is a standby: changes that it has not replayed yet are missing.${until}`;
}
