-- Begins a new epoch and returns it. current_epoch() calls this when it finds another server; the
-- owner calls it with `highload-balance restored` when nothing in the database shows that commits
-- were lost. Granted to no role: raising an epoch needlessly costs nothing, but anyone who can
-- raise one could also explain away removed entries.
CREATE OR REPLACE FUNCTION raise_epoch() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  v_epoch bigint;
BEGIN
  -- One at a time. A session that waits here may hold locks on accounts, but the holder of this
  -- lock waits for no other. Any number, the same as in current_epoch.
  PERFORM pg_advisory_xact_lock(7252310004);
  INSERT INTO epoch (epoch, timeline, server_started_at, database_name, table_oid)
  SELECT greatest(coalesce(max(epoch.epoch), 0) + 1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint),
         substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8), pg_postmaster_start_time(), current_database(), 'epoch'::regclass
  FROM epoch
  RETURNING epoch.epoch INTO v_epoch;
  RETURN v_epoch;
END
$$;
