-- The epoch that a change carries now. Raises it if the server was started or promoted since the
-- last one: a restored or promoted database gives the same versions to other changes, and only
-- their epoch distinguishes the two. A plain restart raises it too, which costs nothing.
--
-- The start of the server covers a rolled-back disk and a switch-over; the timeline covers a
-- promotion, in the first statement after it (pg_control_checkpoint() comes later). A dump that was
-- restored has a table of another oid, a copy of the database another name. None of them covers a
-- machine resumed with its memory: run `highload-balance restored` then.
--
-- SECURITY DEFINER: the processes may not write to epoch. search_path is fixed when this is created, temporary tables last.
CREATE OR REPLACE FUNCTION current_epoch() RETURNS bigint LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  v_epoch bigint;
BEGIN
  FOR attempt IN 1..2 LOOP
    SELECT newest.epoch INTO v_epoch
    FROM (SELECT epoch.*, epoch.tableoid FROM epoch ORDER BY epoch.epoch DESC LIMIT 1) newest
    WHERE newest.timeline = substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)
      AND newest.server_started_at = pg_postmaster_start_time()
      AND newest.database_name = current_database() AND newest.table_oid = newest.tableoid;
    IF FOUND THEN RETURN v_epoch; END IF;
    -- The lock of raise_epoch: the second query sees what the previous session committed.
    IF attempt = 1 THEN PERFORM pg_advisory_xact_lock(7252310004); END IF;
  END LOOP;
  RETURN raise_epoch();
END
$$;
