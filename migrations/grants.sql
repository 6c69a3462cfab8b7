-- The group roles and what each may do. Every `migrate` runs all of it. It is the whole truth for
-- these roles and PUBLIC on the objects of this schema: what it does not grant is revoked. Other
-- roles keep what they were granted.
--
--   balance_api      the API: accounts, holds, idempotency keys, outbox. Reads the ledger, cannot write it
--   balance_worker   the worker: reads the outbox, reads the ledger and its hash chains and adds to them
--   balance_auditor  npm run verify: reads, and nothing else
--
-- The login roles of the processes are members of one each. The owner of the tables (the role that
-- migrates) needs no group role, and no process needs the owner.
--
-- No role is granted UPDATE, DELETE or TRUNCATE on history, and PUBLIC is granted nothing at all.
-- No function is SECURITY DEFINER but current_epoch, raise_outbox_position and
-- switch_outbox_partition: every other one runs with the rights of the calling role, so none has to
-- distrust the session's search_path.

-- The group roles, without login. Roles belong to the whole server, so a restore on another server
-- lacks them. Where several databases are migrated at the same moment, the later one waits for the
-- earlier one and then finds the role. An administrator may have created them before, if the owner
-- may not.
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
END
$$;

-- The schema. CREATE on it is enough to migrate; where it belongs to another role, its owner has to
-- grant the roles USAGE.
DO $$
DECLARE
  v_schema CONSTANT regnamespace := (SELECT oid FROM pg_namespace WHERE nspname = current_schema);
  v_owner CONSTANT oid := (SELECT nspowner FROM pg_namespace WHERE oid = v_schema);
  v_usage CONSTANT text := format('GRANT USAGE ON SCHEMA %s TO balance_api, balance_auditor, balance_worker', v_schema);
  v_revoke CONSTANT text := format('REVOKE CREATE ON SCHEMA %s FROM PUBLIC', v_schema); -- objects in the path of the owner
  v_missing text[];
BEGIN
  IF pg_has_role(v_owner, 'USAGE') THEN
    EXECUTE v_usage;
    EXECUTE v_revoke;
    RETURN;
  END IF;
  v_missing := ARRAY(
    SELECT v_usage WHERE EXISTS (
      SELECT FROM unnest(ARRAY['balance_api', 'balance_auditor', 'balance_worker']) AS role
      WHERE NOT has_schema_privilege(role, v_schema, 'USAGE')
    )
    UNION ALL
    SELECT v_revoke WHERE has_schema_privilege('public', v_schema, 'CREATE')
  );
  IF v_missing <> '{}' THEN
    RAISE EXCEPTION 'the schema % belongs to %. Have that role, or an administrator, run: %',
      v_schema, pg_get_userbyid(v_owner), array_to_string(v_missing, '; ') USING ERRCODE = 'insufficient_privilege';
  END IF;
END
$$;

REVOKE ALL ON FUNCTION
  apply_changes, open_account, change_account, money_verdict, current_epoch, expire_due_holds, sweep_due_holds, event_id, epoch_digits, hold_state,
  expire_idempotency_keys, raise_outbox_position, switch_outbox_partition, truncate_outbox_partition, truncate_relay_progress,
  refuse_change_of_history, ledger_entry_text, ledger_segment_hash, extend_ledger_chain, raise_epoch, last_shared_version
FROM PUBLIC, balance_api, balance_auditor, balance_worker;
REVOKE ALL ON
  account, api_key, epoch, hold, idempotency_key, idempotency_key_even, idempotency_key_odd, idempotency_rotation, ledger,
  ledger_chain, missed, outbox, outbox_even, outbox_odd, relay_progress, reversal, schema_file, schemaversion
FROM PUBLIC, balance_api, balance_auditor, balance_worker;
REVOKE ALL ON SEQUENCE outbox_position, missed_missed_id_seq FROM PUBLIC, balance_api, balance_auditor, balance_worker;

GRANT EXECUTE ON FUNCTION
  apply_changes, open_account, change_account, money_verdict, expire_due_holds, sweep_due_holds, event_id, epoch_digits, hold_state,
  expire_idempotency_keys, raise_outbox_position, switch_outbox_partition, truncate_outbox_partition, truncate_relay_progress
TO balance_api;
GRANT EXECUTE ON FUNCTION current_epoch TO balance_api, balance_worker;
GRANT EXECUTE ON FUNCTION extend_ledger_chain TO balance_worker;
-- The API verifies single accounts, for which it computes their hashes again.
GRANT EXECUTE ON FUNCTION ledger_entry_text, ledger_segment_hash TO balance_worker, balance_api, balance_auditor;
GRANT EXECUTE ON FUNCTION event_id, epoch_digits TO balance_auditor;
-- Both compare external records with the history here. raise_epoch is the owner's alone.
GRANT EXECUTE ON FUNCTION last_shared_version TO balance_api, balance_auditor;

-- UPDATE by column: id, asset and birth of an account never change.
GRANT SELECT, INSERT, UPDATE (balance, held, version, epoch, overdraft_limit, max_balance, status, updated_at) ON account TO balance_api;
GRANT SELECT, INSERT, UPDATE (amount, captured, remaining, status, expires_at, updated_at) ON hold TO balance_api;
GRANT SELECT, INSERT, UPDATE (reversed) ON reversal TO balance_api;
GRANT SELECT, INSERT ON idempotency_key, outbox TO balance_api;
-- Truncated by name; those of the outbox are read first. They are only written to through the
-- parent table.
GRANT TRUNCATE ON idempotency_key_even, idempotency_key_odd TO balance_api;
GRANT SELECT, TRUNCATE ON outbox_even, outbox_odd TO balance_api;
GRANT SELECT, UPDATE (partition, since) ON idempotency_rotation TO balance_api;
GRANT USAGE, SELECT ON SEQUENCE outbox_position TO balance_api;
GRANT SELECT, INSERT, DELETE, TRUNCATE ON relay_progress TO balance_api;
GRANT SELECT, INSERT, UPDATE (last_position, first_created_at, last_created_at, delivered_at) ON missed TO balance_api;
GRANT SELECT, UPDATE (last_used_at) ON api_key TO balance_api;
GRANT SELECT ON epoch, ledger, ledger_chain, schemaversion TO balance_api;

GRANT SELECT, INSERT ON ledger, ledger_chain TO balance_worker;
GRANT SELECT ON outbox, epoch TO balance_worker;

-- For ACCESS SHARE locks, which verify takes on the outbox, SELECT is enough in every version.
GRANT SELECT ON account, hold, reversal, outbox, ledger, ledger_chain, epoch, missed, relay_progress, schemaversion TO balance_auditor;
