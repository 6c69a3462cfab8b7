// What a relay notes for its successor: how far each of its tracks is done.
import type { Pool } from '../../shared/database.ts';

export type TrackName = 'ledger' | 'subscribers';
/** `published`: of the ledger's track what is confirmed; `ledger`: what is recorded as well. */
export type Noted = TrackName | 'published';

const PROGRESS = `
  SELECT coalesce(max(position) FILTER (WHERE track = 'ledger'), 0) AS ledger,
         coalesce(max(position) FILTER (WHERE track = 'published'), 0) AS published,
         coalesce(max(position) FILTER (WHERE track = 'subscribers'), 0) AS subscribers
  FROM relay_progress`;

/** After it the track goes on; 0 where nothing was noted. */
export async function readProgress(database: Pool): Promise<Record<Noted, number>> {
  return (await database.query(PROGRESS)).rows[0];
}

export async function noteProgress(
  database: Pool,
  tracks: readonly Noted[],
  positions: readonly number[],
): Promise<void> {
  await database.query({
    name: 'relay_note',
    text: 'INSERT INTO relay_progress (track, position) SELECT * FROM unnest($1::text[], $2::bigint[]) ON CONFLICT DO NOTHING',
    values: [tracks, positions],
  });
}

/** Events from a position on are owed again, also by the next relay. */
export async function lowerProgress(database: Pool, track: TrackName, from: number): Promise<void> {
  const values = [track, from];
  await database.query(
    'INSERT INTO relay_progress (track, position) VALUES ($1, $2::bigint - 1) ON CONFLICT DO NOTHING',
    values,
  );
  await database.query('DELETE FROM relay_progress WHERE track = $1 AND position >= $2', values);
}

/**
 * The next positions are above all that outbox and notes know.
 * @returns the position after which they come, where that had to be made so.
 */
export async function raisePosition(database: Pool): Promise<number | null> {
  return (await database.query('SELECT raise_outbox_position() AS position')).rows[0].position;
}
