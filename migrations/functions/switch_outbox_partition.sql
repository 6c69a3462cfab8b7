-- Switches writers to the other partition: moves the sequence to the start of the next block of
-- positions, whose parity selects the partition. Transactions that drew a position before still
-- insert into the old one.
--
-- At the very end of a block it does nothing: other sessions draw positions while this runs, and
-- would be set back.
--
-- SECURITY DEFINER: the processes may not set the sequence.
CREATE OR REPLACE FUNCTION switch_outbox_partition() RETURNS void LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  v_margin CONSTANT bigint := 1000000;
  v_last bigint;
  v_next bigint;
BEGIN
  -- One at a time: two would set the sequence back by what was drawn in between. Any number, the same as in raise_outbox_position.
  PERFORM pg_advisory_xact_lock(7252310005);
  SELECT last_value INTO v_last FROM outbox_position;
  v_next := ((v_last >> 26) + 1) << 26;
  IF v_next - v_last > v_margin THEN PERFORM setval('outbox_position', v_next, false); END IF;
END
$$;
