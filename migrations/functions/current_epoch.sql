-- The epoch that a change carries now. Raises it where the server has started or was promoted since the last one: a restored
-- or promoted database gives the same versions to other changes, and only their epoch tells the two apart. A harmless
-- restart raises it too, which costs nobody anything.
--
-- The start of the server covers a rolled-back disk and a switch-over; the timeline covers a promotion, in the first statement
-- after it (pg_control_checkpoint() comes later). A dump that was restored has a table of another oid, a copy of the database
-- another name. What none of them covers is a machine resumed with its memory.
--
-- SECURITY DEFINER: the processes may not write to epoch. search_path is fixed when this is created, temporary tables last.
CREATE OR REPLACE FUNCTION current_epoch() RETURNS bigint LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  v_timeline CONSTANT text := substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8);
  v_epoch bigint;
BEGIN
  FOR attempt IN 1..2 LOOP
    SELECT newest.epoch INTO v_epoch
    FROM (SELECT epoch.*, epoch.tableoid FROM epoch ORDER BY epoch.epoch DESC LIMIT 1) newest
    WHERE newest.timeline = v_timeline AND newest.server_started_at = pg_postmaster_start_time()
      AND newest.database_name = current_database() AND newest.table_oid = newest.tableoid;
    IF FOUND THEN RETURN v_epoch; END IF;
    -- One at a time, and the second look sees what the one before committed. A session that waits here holds locks on accounts,
    -- and the one that has this lock waits for no other. Any number, the same for all.
    IF attempt = 1 THEN PERFORM pg_advisory_xact_lock(7252310004); END IF;
  END LOOP;
  INSERT INTO epoch (epoch, timeline, server_started_at, database_name, table_oid)
  SELECT greatest(coalesce(max(epoch.epoch), 0) + 1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint),
         v_timeline, pg_postmaster_start_time(), current_database(), 'epoch'::regclass
  FROM epoch
  RETURNING epoch.epoch INTO v_epoch;
  RETURN v_epoch;
END
$$;
