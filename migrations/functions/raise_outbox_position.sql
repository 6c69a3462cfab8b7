-- Logical replication copies tables but no sequences, and a partial restore can have the same
-- effect: new positions would then collide with rows of the outbox, and each such change would
-- fail, or would lie below the relay's floor, where it does not look first. Only ever moves
-- forward. Returns the position after which the next ones follow, or null if nothing was wrong.
--
-- SECURITY DEFINER: the processes may not set the sequence.
CREATE OR REPLACE FUNCTION raise_outbox_position() RETURNS bigint LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  -- Other sessions may draw positions between the check and this step.
  v_margin CONSTANT bigint := 10000;
  v_known bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(7252310005); -- as switch_outbox_partition
  v_known := greatest((SELECT max(position) FROM outbox), (SELECT max(position) FROM relay_progress), 0);
  IF (SELECT last_value >= v_known AND (is_called OR last_value > v_known) FROM outbox_position) THEN RETURN NULL; END IF;
  RETURN setval('outbox_position', v_known + v_margin);
END
$$;
