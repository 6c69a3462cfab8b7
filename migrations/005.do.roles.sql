-- Who may do what. Three group roles without login; the login roles of the processes are members of one each:
--
--   balance_api      the API: accounts, idempotency keys, outbox. Reads the ledger, cannot write it
--   balance_worker   the worker: reads the outbox, reads the ledger and adds to it
--   balance_auditor  npm run verify: reads, and nothing else
--
-- The owner of the tables (whoever migrates) needs no role and no process needs the owner. Nobody is granted UPDATE,
-- DELETE or TRUNCATE on the ledger, and PUBLIC is granted nothing at all.
-- No function is SECURITY DEFINER: each runs with the rights of its caller, so none has to distrust the caller's
-- search_path. Objects that others put in the path of the owner are what the REVOKE of CREATE answers.

-- Roles belong to the whole server. Where several databases are migrated at the same moment, the later one waits here for the
-- earlier one and then finds the role. An administrator may have made them before, for a migrating user that may not.
DO $$
DECLARE
  group_role text;
BEGIN
  FOREACH group_role IN ARRAY ARRAY['balance_api', 'balance_auditor', 'balance_worker'] LOOP
    CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = group_role);
    BEGIN
      EXECUTE format('CREATE ROLE %I NOLOGIN', group_role);
    EXCEPTION
      WHEN duplicate_object OR unique_violation THEN NULL; -- another database's migration was faster
      WHEN insufficient_privilege THEN
        RAISE EXCEPTION '% may not create the role %. Give it CREATEROLE, or have an administrator run: CREATE ROLE balance_api NOLOGIN; CREATE ROLE balance_auditor NOLOGIN; CREATE ROLE balance_worker NOLOGIN; and then migrate again',
          current_user, group_role USING ERRCODE = 'insufficient_privilege';
    END;
  END LOOP;
  EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', current_schema);
  EXECUTE format('GRANT USAGE ON SCHEMA %I TO balance_api, balance_auditor, balance_worker', current_schema);
END
$$;

REVOKE ALL ON FUNCTION refuse_ledger_change, balance_step, running_balance, apply_balance_updates, expire_idempotency_keys FROM PUBLIC;
GRANT EXECUTE ON FUNCTION balance_step, running_balance, apply_balance_updates, expire_idempotency_keys TO balance_api;

-- UPDATE by column: neither the name of an account nor its birth ever changes.
GRANT SELECT, INSERT, UPDATE (balance, version, overdraft_limit, status, updated_at) ON account TO balance_api;
GRANT SELECT, INSERT ON request, outbox TO balance_api;
-- Truncated by name; those of the outbox are looked into first. They are written to by way of the whole only.
GRANT TRUNCATE ON request_even, request_odd TO balance_api;
GRANT SELECT, TRUNCATE ON outbox_even, outbox_odd TO balance_api;
GRANT SELECT, UPDATE (partition, since) ON request_rotation TO balance_api;
GRANT USAGE, SELECT ON SEQUENCE outbox_position TO balance_api;
GRANT SELECT, INSERT, DELETE, TRUNCATE ON relay_progress TO balance_api;
GRANT SELECT ON ledger, schemaversion TO balance_api;

GRANT SELECT, INSERT ON ledger TO balance_worker;
GRANT SELECT ON outbox TO balance_worker;

-- For ACCESS SHARE locks, which verify takes on the outbox, SELECT is enough in every version.
GRANT SELECT ON account, outbox, ledger TO balance_auditor;
