-- The ledger takes inserts only. ENABLE ALWAYS: also under session_replication_role = replica.
-- The owner and a superuser can still drop the triggers; that is for grants and backups to answer, not for a trigger.

CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the ledger is append-only: % is refused', TG_OP
    USING ERRCODE = 'restrict_violation',
          HINT = 'Correct an account with a further balance update, never by changing its history.';
END
$$;

CREATE TRIGGER ledger_rows_are_final BEFORE UPDATE OR DELETE ON ledger
  FOR EACH ROW EXECUTE FUNCTION refuse_ledger_change();
CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change();
ALTER TABLE ledger ENABLE ALWAYS TRIGGER ledger_rows_are_final;
ALTER TABLE ledger ENABLE ALWAYS TRIGGER ledger_is_append_only;
