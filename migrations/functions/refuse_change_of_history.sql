-- History tables accept inserts only: ledger, ledger_chain, epoch. ENABLE ALWAYS: also under
-- session_replication_role = replica. The owner and a superuser can still drop the triggers; grants
-- and backups protect against that. migrate restores a trigger that is missing, changed or
-- disabled, and reports it.
CREATE OR REPLACE FUNCTION refuse_change_of_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
    USING ERRCODE = 'restrict_violation',
          HINT = 'Correct an account with a further balance update, never by changing its history.';
END
$$;

-- migrate compares these statements with the catalog, so they are written as PostgreSQL writes
-- them: events in its order.
CREATE OR REPLACE TRIGGER ledger_rows_are_final BEFORE DELETE OR UPDATE ON ledger
  FOR EACH ROW EXECUTE FUNCTION refuse_change_of_history();
CREATE OR REPLACE TRIGGER ledger_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON ledger
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();
CREATE OR REPLACE TRIGGER ledger_chain_rows_are_final BEFORE DELETE OR UPDATE ON ledger_chain
  FOR EACH ROW EXECUTE FUNCTION refuse_change_of_history();
CREATE OR REPLACE TRIGGER ledger_chain_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON ledger_chain
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();
CREATE OR REPLACE TRIGGER epoch_rows_are_final BEFORE DELETE OR UPDATE ON epoch
  FOR EACH ROW EXECUTE FUNCTION refuse_change_of_history();
CREATE OR REPLACE TRIGGER epoch_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON epoch
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();
ALTER TABLE ledger ENABLE ALWAYS TRIGGER ledger_rows_are_final, ENABLE ALWAYS TRIGGER ledger_is_append_only;
ALTER TABLE ledger_chain ENABLE ALWAYS TRIGGER ledger_chain_rows_are_final, ENABLE ALWAYS TRIGGER ledger_chain_is_append_only;
ALTER TABLE epoch ENABLE ALWAYS TRIGGER epoch_rows_are_final, ENABLE ALWAYS TRIGGER epoch_is_append_only;
