-- Empties relay_progress but for the highest note of each track. Gives up soon (lock_not_available), as truncate_outbox_partition().
CREATE OR REPLACE FUNCTION truncate_relay_progress() RETURNS void
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '40ms' AS $$
DECLARE
  v_tracks text[];
  v_positions bigint[];
BEGIN
  LOCK TABLE relay_progress IN ACCESS EXCLUSIVE MODE;
  SELECT array_agg(track), array_agg(position) INTO v_tracks, v_positions
  FROM (SELECT track, max(position) AS position FROM relay_progress GROUP BY track) highest;
  TRUNCATE relay_progress;
  INSERT INTO relay_progress (track, position) SELECT * FROM unnest(v_tracks, v_positions);
END
$$;
