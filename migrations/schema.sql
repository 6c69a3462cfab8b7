-- The schema as PostgreSQL has it after migrate: a picture to read and to compare, not a script. `npm run schema` writes it from
-- a database that was just migrated, and test/integration/schema.test.ts compares it with the real one. Tables come in the
-- order in which they are made; a comment beside a column is its COMMENT. Owners and the name of the schema are left out.

-- The schema ------------------------------------------------------------------------------------------

GRANT USAGE ON SCHEMA public TO balance_api;
GRANT USAGE ON SCHEMA public TO balance_auditor;
GRANT USAGE ON SCHEMA public TO balance_worker;

-- Domains ---------------------------------------------------------------------------------------------

CREATE DOMAIN account_id AS text COLLATE "C"
  CONSTRAINT account_id_form CHECK (VALUE !~ '[^A-Za-z0-9._:-]'::text AND octet_length(VALUE) >= 1 AND octet_length(VALUE) <= 64 AND (VALUE <> ALL (ARRAY['.'::text, '..'::text])));

CREATE DOMAIN asset_code AS text COLLATE "C"
  CONSTRAINT asset_code_form CHECK (VALUE !~ '[^A-Z0-9/._-]'::text AND octet_length(VALUE) >= 1 AND octet_length(VALUE) <= 20);

CREATE DOMAIN hold_id AS text COLLATE "C"
  CONSTRAINT hold_id_form CHECK (VALUE !~ '[^A-Za-z0-9._:-]'::text AND octet_length(VALUE) >= 1 AND octet_length(VALUE) <= 64 AND (VALUE <> ALL (ARRAY['.'::text, '..'::text])));

-- Tables ----------------------------------------------------------------------------------------------

-- The balance of record. version counts the changes of an account (money, hold, limit, status) and rises by exactly 1 with
-- each; its opening is version 0.
CREATE TABLE account (
  account_id account_id NOT NULL,
  asset asset_code NOT NULL DEFAULT 'UNIT'::text,
  balance bigint NOT NULL DEFAULT 0,
  held bigint NOT NULL DEFAULT 0, -- Minor units that active holds set aside: the sum of their remaining amounts.
  version bigint NOT NULL DEFAULT 0,
  epoch bigint NOT NULL, -- Of the last change, see epoch.
  overdraft_limit bigint NOT NULL DEFAULT 0,
  max_balance bigint, -- Credits above it are declined; null: no limit.
  status text NOT NULL DEFAULT 'open'::text,
  created_at timestamp(3) with time zone NOT NULL,
  updated_at timestamp(3) with time zone NOT NULL,
  CONSTRAINT account_pk PRIMARY KEY (account_id),
  CONSTRAINT account_balance_in_range CHECK (balance >= '-9007199254740991'::bigint AND balance <= '9007199254740991'::bigint),
  CONSTRAINT account_held_in_range CHECK (held >= 0 AND held <= '9007199254740991'::bigint),
  CONSTRAINT account_version_in_range CHECK (version >= 0 AND version <= '9007199254740991'::bigint),
  CONSTRAINT account_overdraft_limit_in_range CHECK (overdraft_limit >= 0 AND overdraft_limit <= '9007199254740991'::bigint),
  CONSTRAINT account_max_balance_in_range CHECK (max_balance >= 0 AND max_balance <= '9007199254740991'::bigint),
  CONSTRAINT account_not_overdrawn CHECK ((balance - held) >= (- overdraft_limit)),
  CONSTRAINT account_status_known CHECK (status = ANY (ARRAY['open'::text, 'frozen'::text, 'closed'::text])),
  CONSTRAINT account_closed_is_empty CHECK (status <> 'closed'::text OR balance = 0 AND held = 0)
) WITH (fillfactor=80);
GRANT INSERT, SELECT, UPDATE (balance, held, version, epoch, overdraft_limit, max_balance, status, updated_at) ON account TO balance_api;
GRANT SELECT ON account TO balance_auditor;

-- One row a hold, permanently. client and fingerprint are those of the request that placed it: a retry finds them equal.
CREATE TABLE hold (
  account_id text COLLATE "C" NOT NULL,
  hold_id hold_id NOT NULL,
  amount bigint NOT NULL,
  captured bigint NOT NULL DEFAULT 0,
  remaining bigint NOT NULL,
  status text NOT NULL DEFAULT 'active'::text,
  expires_at timestamp(3) with time zone,
  client text COLLATE "C" NOT NULL,
  fingerprint bytea NOT NULL,
  reference text,
  metadata text,
  created_at timestamp(3) with time zone NOT NULL,
  updated_at timestamp(3) with time zone NOT NULL,
  CONSTRAINT hold_pk PRIMARY KEY (account_id, hold_id),
  CONSTRAINT hold_fingerprint_is_16_bytes CHECK (octet_length(fingerprint) = 16),
  CONSTRAINT hold_amount_in_range CHECK (amount >= 1 AND amount <= '9007199254740991'::bigint),
  CONSTRAINT hold_captured_in_range CHECK (captured >= 0 AND captured <= amount),
  CONSTRAINT hold_remaining_in_range CHECK (remaining >= 0 AND remaining <= (amount - captured)),
  CONSTRAINT hold_status_known CHECK (status = ANY (ARRAY['active'::text, 'captured'::text, 'released'::text, 'expired'::text])),
  CONSTRAINT hold_active_while_remaining CHECK ((status = 'active'::text) = (remaining > 0))
) WITH (fillfactor=80);
CREATE INDEX hold_active ON hold USING btree (account_id, expires_at) WHERE status = 'active'::text;
CREATE INDEX hold_due ON hold USING btree (expires_at) WHERE remaining > 0 AND expires_at IS NOT NULL;
GRANT INSERT, SELECT, UPDATE (amount, captured, remaining, status, expires_at, updated_at) ON hold TO balance_api;
GRANT SELECT ON hold TO balance_auditor;

-- The sum of the reversals of a change, or of a transfer by its lowest debited leg; amounts without a sign.
CREATE TABLE reversal (
  account_id text COLLATE "C" NOT NULL,
  version bigint NOT NULL,
  epoch bigint NOT NULL,
  original bigint NOT NULL,
  reversed bigint NOT NULL,
  CONSTRAINT reversal_pk PRIMARY KEY (account_id, version, epoch),
  CONSTRAINT reversal_within_original CHECK (reversed >= 1 AND reversed <= original)
) WITH (fillfactor=80);
GRANT INSERT, SELECT, UPDATE (reversed) ON reversal TO balance_api;
GRANT SELECT ON reversal TO balance_auditor;

-- Append-only. epoch is the later of the clock in milliseconds since 1970 and the last epoch + 1. Written by current_epoch().
CREATE TABLE epoch (
  epoch bigint NOT NULL,
  timeline text NOT NULL,
  server_started_at timestamp with time zone NOT NULL,
  database_name text COLLATE "C" NOT NULL,
  table_oid oid NOT NULL, -- Of this table. Another one has the rows of a dump.
  raised_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT epoch_pk PRIMARY KEY (epoch),
  CONSTRAINT epoch_in_range CHECK (epoch >= 1 AND epoch <= '9007199254740991'::bigint)
);
CREATE TRIGGER epoch_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON epoch FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();
ALTER TABLE epoch ENABLE ALWAYS TRIGGER epoch_is_append_only;
CREATE TRIGGER epoch_rows_are_final BEFORE DELETE OR UPDATE ON epoch FOR EACH ROW EXECUTE FUNCTION refuse_change_of_history();
ALTER TABLE epoch ENABLE ALWAYS TRIGGER epoch_rows_are_final;
GRANT SELECT ON epoch TO balance_api;
GRANT SELECT ON epoch TO balance_auditor;
GRANT SELECT ON epoch TO balance_worker;

CREATE SEQUENCE outbox_position AS bigint START 1 INCREMENT 1 MINVALUE 1 MAXVALUE 9223372036854775807 CACHE 1 OWNED BY outbox.position;
GRANT SELECT, USAGE ON SEQUENCE outbox_position TO balance_api;

-- Accepted changes, until their entry is recorded, subscribers have their event, and every remaining snapshot contains the
-- entry. The columns are those of ledger.
CREATE TABLE outbox (
  position bigint NOT NULL DEFAULT nextval('outbox_position'::regclass),
  account_id text COLLATE "C" NOT NULL,
  version bigint NOT NULL,
  epoch bigint NOT NULL,
  previous_epoch bigint,
  amount bigint NOT NULL DEFAULT 0,
  held_change bigint NOT NULL DEFAULT 0,
  balance bigint NOT NULL,
  held bigint NOT NULL DEFAULT 0,
  created_at timestamp(3) with time zone NOT NULL,
  type text NOT NULL,
  asset text NOT NULL,
  reference text,
  actor text,
  traceparent text,
  metadata text,
  transfer_id text COLLATE "C",
  reverses text COLLATE "C",
  hold_id text COLLATE "C",
  hold_status text,
  hold_remaining bigint,
  hold_expires_at timestamp(3) with time zone,
  overdraft_limit bigint,
  max_balance bigint,
  status text
) PARTITION BY LIST (((("position" >> 26) & (1)::bigint)));
GRANT INSERT, SELECT ON outbox TO balance_api;
GRANT SELECT ON outbox TO balance_auditor;
GRANT SELECT ON outbox TO balance_worker;

CREATE TABLE outbox_even PARTITION OF outbox (
  CONSTRAINT outbox_even_pk PRIMARY KEY (account_id, version),
  CONSTRAINT outbox_even_position_unique UNIQUE ("position")
) FOR VALUES IN ('0') WITH (autovacuum_enabled=false);
CREATE INDEX outbox_even_transfer ON outbox_even USING btree (transfer_id) WHERE transfer_id IS NOT NULL;
GRANT SELECT, TRUNCATE ON outbox_even TO balance_api;

CREATE TABLE outbox_odd PARTITION OF outbox (
  CONSTRAINT outbox_odd_pk PRIMARY KEY (account_id, version),
  CONSTRAINT outbox_odd_position_unique UNIQUE ("position")
) FOR VALUES IN ('1') WITH (autovacuum_enabled=false);
CREATE INDEX outbox_odd_transfer ON outbox_odd USING btree (transfer_id) WHERE transfer_id IS NOT NULL;
GRANT SELECT, TRUNCATE ON outbox_odd TO balance_api;

-- published: to the ledger queue, and confirmed. ledger: recorded as well. subscribers: confirmed by every queue that
-- subscribers bound, or passed over and noted in missed.
CREATE TABLE relay_progress (
  track text COLLATE "C" NOT NULL,
  position bigint NOT NULL,
  CONSTRAINT relay_progress_pk PRIMARY KEY (track, "position"),
  CONSTRAINT relay_progress_track_known CHECK (track = ANY (ARRAY['ledger'::text, 'published'::text, 'subscribers'::text]))
) WITH (autovacuum_enabled=false);
GRANT DELETE, INSERT, SELECT, TRUNCATE ON relay_progress TO balance_api;
GRANT SELECT ON relay_progress TO balance_auditor;

-- Positions of the outbox, and when the changes there were created, for replay. queue null: every subscriber. For a queue that
-- was put aside, routing_keys are those of its bindings, and the last position and time are null until it is bound again.
-- delivered_at: when it was delivered, or no longer needed.
CREATE TABLE missed (
  missed_id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
  queue text,
  routing_keys text[],
  first_position bigint NOT NULL,
  last_position bigint,
  first_created_at timestamp(3) with time zone NOT NULL,
  last_created_at timestamp(3) with time zone,
  noted_at timestamp(3) with time zone NOT NULL DEFAULT clock_timestamp(),
  delivered_at timestamp(3) with time zone,
  CONSTRAINT missed_pk PRIMARY KEY (missed_id),
  CONSTRAINT missed_in_order CHECK (last_position >= first_position)
);
GRANT INSERT, SELECT, UPDATE (last_position, first_created_at, last_created_at, delivered_at) ON missed TO balance_api;
GRANT SELECT ON missed TO balance_auditor;

-- Append-only audit trail. balance, held and the hold are as this entry left them; overdraft_limit, max_balance and status are
-- given by account.* alone.
CREATE TABLE ledger (
  account_id text COLLATE "C" NOT NULL,
  version bigint NOT NULL,
  epoch bigint NOT NULL,
  previous_epoch bigint, -- Epoch of the version before; null at version 0.
  amount bigint NOT NULL,
  held_change bigint NOT NULL,
  balance bigint NOT NULL,
  held bigint NOT NULL,
  created_at timestamp(3) with time zone NOT NULL, -- When the change was accepted, by the clock of the database; never before the entry of the version before.
  recorded_at timestamp(3) with time zone NOT NULL DEFAULT clock_timestamp(), -- When the entry was written here.
  type text NOT NULL,
  asset text NOT NULL,
  reference text,
  actor text,
  metadata text, -- The JSON text that is hashed.
  transfer_id text COLLATE "C", -- Event id of the lowest debited leg.
  reverses text COLLATE "C", -- Event id of the change, or id of the transfer, that this entry reverses.
  hold_id text COLLATE "C",
  hold_status text,
  hold_remaining bigint,
  hold_expires_at timestamp(3) with time zone,
  overdraft_limit bigint,
  max_balance bigint,
  status text,
  CONSTRAINT ledger_pk PRIMARY KEY (account_id, version),
  CONSTRAINT ledger_version_not_negative CHECK (version >= 0),
  CONSTRAINT ledger_opens_at_0 CHECK ((version = 0) = (type = 'account.opened'::text) AND (version = 0) = (previous_epoch IS NULL)),
  CONSTRAINT ledger_type_known CHECK (type = ANY (ARRAY['account.opened'::text, 'account.changed'::text, 'balance.credited'::text, 'balance.debited'::text, 'hold.placed'::text, 'hold.changed'::text, 'hold.released'::text, 'hold.expired'::text])),
  CONSTRAINT ledger_type_says_the_sign CHECK ((amount > 0) = (type = 'balance.credited'::text) AND (amount < 0) = (type = 'balance.debited'::text))
) WITH (autovacuum_freeze_min_age=0, autovacuum_vacuum_insert_scale_factor=0.01, autovacuum_vacuum_insert_threshold=100000);
CREATE INDEX ledger_transfer ON ledger USING btree (transfer_id) WHERE transfer_id IS NOT NULL;
CREATE INDEX ledger_hold ON ledger USING btree (account_id, hold_id, version) WHERE hold_id IS NOT NULL;
CREATE INDEX ledger_reference ON ledger USING btree (account_id, reference, version) WHERE reference IS NOT NULL;
CREATE INDEX ledger_limits ON ledger USING btree (account_id, version) WHERE status IS NOT NULL;
CREATE INDEX ledger_reverses ON ledger USING btree (account_id, reverses, version) WHERE reverses IS NOT NULL;
CREATE TRIGGER ledger_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON ledger FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();
ALTER TABLE ledger ENABLE ALWAYS TRIGGER ledger_is_append_only;
CREATE TRIGGER ledger_rows_are_final BEFORE DELETE OR UPDATE ON ledger FOR EACH ROW EXECUTE FUNCTION refuse_change_of_history();
ALTER TABLE ledger ENABLE ALWAYS TRIGGER ledger_rows_are_final;
GRANT SELECT ON ledger TO balance_api;
GRANT SELECT ON ledger TO balance_auditor;
GRANT INSERT, SELECT ON ledger TO balance_worker;

-- Append-only: the segments of an account's entries, from version 0 without a gap. hash = sha256(hash of the segment before ||
-- the canonical bytes of its entries); 32 zero bytes stand before the first one.
CREATE TABLE ledger_chain (
  account_id text COLLATE "C" NOT NULL,
  first_version bigint NOT NULL,
  last_version bigint NOT NULL,
  hash bytea NOT NULL,
  CONSTRAINT ledger_chain_pk PRIMARY KEY (account_id, last_version),
  CONSTRAINT ledger_chain_not_empty CHECK (first_version >= 0 AND first_version <= last_version),
  CONSTRAINT ledger_chain_hash_is_sha256 CHECK (octet_length(hash) = 32)
) WITH (autovacuum_freeze_min_age=0, autovacuum_vacuum_insert_scale_factor=0.01, autovacuum_vacuum_insert_threshold=100000);
CREATE TRIGGER ledger_chain_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON ledger_chain FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_history();
ALTER TABLE ledger_chain ENABLE ALWAYS TRIGGER ledger_chain_is_append_only;
CREATE TRIGGER ledger_chain_rows_are_final BEFORE DELETE OR UPDATE ON ledger_chain FOR EACH ROW EXECUTE FUNCTION refuse_change_of_history();
ALTER TABLE ledger_chain ENABLE ALWAYS TRIGGER ledger_chain_rows_are_final;
GRANT SELECT ON ledger_chain TO balance_api;
GRANT SELECT ON ledger_chain TO balance_auditor;
GRANT INSERT, SELECT ON ledger_chain TO balance_worker;

-- The first answer to a key, by account and client. fingerprint: of operation and body, made by the API.
CREATE TABLE idempotency_key (
  account_id text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  client text COLLATE "C" NOT NULL, -- The actor of the API key; empty if authentication is off.
  fingerprint bytea NOT NULL,
  outcome text NOT NULL,
  amount bigint, -- The amount that was taken, if the request did not state it.
  balance bigint NOT NULL,
  version bigint NOT NULL,
  epoch bigint NOT NULL,
  other_legs bigint[], -- Balance, version, epoch and milliseconds since 1970 of each further leg; of a refusal that a further leg caused, its number.
  hold_state text, -- The hold after it, as the answer had it.
  created_at timestamp(3) with time zone NOT NULL,
  partition smallint NOT NULL
) PARTITION BY LIST (partition);
GRANT INSERT, SELECT ON idempotency_key TO balance_api;

CREATE TABLE idempotency_key_even PARTITION OF idempotency_key (
  CONSTRAINT idempotency_key_even_pk PRIMARY KEY (account_id, key, client)
) FOR VALUES IN ('0') WITH (autovacuum_enabled=false);
GRANT TRUNCATE ON idempotency_key_even TO balance_api;

CREATE TABLE idempotency_key_odd PARTITION OF idempotency_key (
  CONSTRAINT idempotency_key_odd_pk PRIMARY KEY (account_id, key, client)
) FOR VALUES IN ('1') WITH (autovacuum_enabled=false);
GRANT TRUNCATE ON idempotency_key_odd TO balance_api;

CREATE TABLE idempotency_rotation (
  only_row boolean NOT NULL DEFAULT true,
  partition smallint NOT NULL,
  since timestamp with time zone NOT NULL,
  CONSTRAINT idempotency_rotation_pk PRIMARY KEY (only_row),
  CONSTRAINT idempotency_rotation_one_row CHECK (only_row),
  CONSTRAINT idempotency_rotation_partition_known CHECK (partition = ANY (ARRAY[0, 1]))
);
GRANT SELECT, UPDATE (partition, since) ON idempotency_rotation TO balance_api;

-- API keys. actor is the client that holds it: its name is in the ledger. Revoked keys stay, so that a key id in an old log can
-- be looked up.
CREATE TABLE api_key (
  key_id text COLLATE "C" NOT NULL, -- The public part of the token, by which it is found.
  actor text COLLATE "C" NOT NULL,
  scopes text[] NOT NULL,
  account_prefix text COLLATE "C", -- The key covers accounts whose id begins with it; null: all.
  rate_limit integer, -- Updates, or other requests, in a window; null: the setting RATE_LIMIT.
  token_sha256 bytea NOT NULL,
  created_at timestamp(3) with time zone NOT NULL DEFAULT clock_timestamp(),
  expires_at timestamp(3) with time zone, -- It is refused from then on; null: never.
  last_used_at timestamp(3) with time zone, -- To about a minute; null: never used.
  revoked_at timestamp(3) with time zone,
  CONSTRAINT api_key_pk PRIMARY KEY (key_id),
  CONSTRAINT api_key_id_form CHECK (key_id ~ '^[0-9A-Za-z]{12}$'::text),
  CONSTRAINT api_key_actor_form CHECK (actor ~ '^[A-Za-z0-9._:-]{1,64}$'::text),
  CONSTRAINT api_key_scopes_known CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['read'::text, 'write'::text, 'admin'::text]),
  CONSTRAINT api_key_account_prefix_form CHECK (account_prefix ~ '^[A-Za-z0-9._:-]{0,63}[:._-]$'::text),
  CONSTRAINT api_key_rate_limit_positive CHECK (rate_limit > 0),
  CONSTRAINT api_key_token_is_hashed CHECK (octet_length(token_sha256) = 32)
);
CREATE INDEX api_key_active ON api_key USING btree (COALESCE(expires_at, 'infinity'::timestamp with time zone)) WHERE revoked_at IS NULL;
GRANT SELECT, UPDATE (last_used_at) ON api_key TO balance_api;

-- Of migrate ------------------------------------------------------------------------------------------

-- The files of migrations/ that are applied again whenever their text changes.
CREATE TABLE schema_file (
  name text COLLATE "C" NOT NULL,
  sha256 text NOT NULL,
  applied_at timestamp(3) with time zone NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT schema_file_pk PRIMARY KEY (name)
);

CREATE TABLE schemaversion (
  version bigint NOT NULL,
  name text,
  md5 text,
  run_at timestamp with time zone,
  CONSTRAINT schemaversion_pkey PRIMARY KEY (version)
);
GRANT SELECT ON schemaversion TO balance_api;
GRANT SELECT ON schemaversion TO balance_auditor;

-- Functions -------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION apply_changes(p_accounts text[], p_leg_accounts integer[], p_amounts bigint[], p_references text[], p_metadata text[], p_actors text[], p_traceparents text[], p_expected_versions bigint[], p_up_to boolean[], p_keys text[], p_fingerprints bytea[], p_same integer[], p_payers integer[], p_kinds text[], p_first_legs integer[], p_key_accounts integer[], p_objects integer[], p_hold_seconds integer[], p_hold_accounts integer[], p_hold_ids text[], p_reversal_accounts integer[], p_reversal_versions bigint[], p_reversal_epochs bigint[], p_reversal_originals bigint[], p_reversal_ids text[], p_forgotten boolean[] DEFAULT NULL::boolean[], OUT outcomes text[], OUT replayed boolean[], OUT failed_legs integer[], OUT hold_states text[], OUT balances bigint[], OUT versions bigint[], OUT epochs bigint[], OUT times timestamp with time zone[], OUT amounts bigint[], OUT batch_epoch bigint, OUT batch_time timestamp with time zone)
 RETURNS record
 LANGUAGE plpgsql
AS $function$
DECLARE
  v_is_locked boolean;
  v_asset text;
  v_held_now bigint;
  v_found record;
BEGIN
  -- Above READ COMMITTED the look-ups below would use a snapshot older than the lock, and one key could apply twice.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'apply_changes needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'feature_not_supported';
  END IF;

  -- A single update, which is the usual batch: a few statements instead of everything below, which
  -- costs twice as much. Anything unusual matches nothing here and is decided below. Statements
  -- fill the OUT parameters directly, and variables that only other batches need are declared
  -- below: PL/pgSQL prepares each expression again in each transaction.
  IF cardinality(p_leg_accounts) = 1 AND p_first_legs IS NULL AND p_expected_versions IS NULL AND p_up_to IS NULL
     AND p_forgotten IS NULL THEN
    IF p_keys[1] IS NOT NULL THEN
      SELECT true INTO v_is_locked FROM account WHERE account.account_id = p_accounts[1] FOR NO KEY UPDATE;
      SELECT found.fingerprint, found.outcome, found.balance, found.version, found.epoch, found.created_at INTO v_found
      FROM idempotency_key found
      WHERE found.account_id = p_accounts[1] AND found.key = p_keys[1] AND found.client = coalesce(p_actors[1], '');
      IF FOUND THEN
        replayed := ARRAY[v_found.fingerprint = p_fingerprints[1]];
        outcomes := ARRAY[CASE WHEN replayed[1] THEN nullif(v_found.outcome, 'applied') ELSE 'idempotency_key_reused' END];
        balances := ARRAY[CASE WHEN replayed[1] THEN v_found.balance END];
        versions := ARRAY[CASE WHEN replayed[1] THEN v_found.version END];
        batch_epoch := v_found.epoch;
        batch_time := v_found.created_at;
        RETURN;
      END IF;
    END IF;
    -- With a key, only an account that was locked before the key was looked up, not one that was
    -- opened in between.
    UPDATE account
    SET balance = account.balance + p_amounts[1], version = account.version + 1,
        updated_at = greatest(date_trunc('milliseconds', clock_timestamp()), account.updated_at)
    WHERE account.account_id = p_accounts[1] AND account.status = 'open' AND (v_is_locked OR p_keys[1] IS NULL)
      AND (account.held = 0 OR NOT EXISTS (
        -- The clock is read in a subselect: a volatile function cannot be an index condition, and
        -- every active hold would be read.
        SELECT FROM hold WHERE hold.account_id = p_accounts[1] AND hold.status = 'active' AND hold.expires_at <= (SELECT clock_timestamp())
      ))
      AND account.epoch = (
        SELECT CASE WHEN newest.timeline = substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)
                     AND newest.server_started_at = pg_postmaster_start_time() AND newest.database_name = current_database()
                     AND newest.table_oid = newest.tableoid THEN newest.epoch END
        FROM epoch newest ORDER BY newest.epoch DESC LIMIT 1
      )
      AND money_verdict(
        p_amounts[1], account.balance, account.held - account.overdraft_limit, coalesce(account.max_balance, 9007199254740991)
      ) IS NULL
    RETURNING ARRAY[account.balance], ARRAY[account.version], account.epoch, account.updated_at, account.asset, account.held
      INTO balances, versions, batch_epoch, batch_time, v_asset, v_held_now;
    IF FOUND THEN
      INSERT INTO outbox (
        account_id, version, epoch, previous_epoch, amount, balance, held, created_at, type, asset, reference, actor, traceparent, metadata
      ) VALUES (
        p_accounts[1], versions[1], batch_epoch, batch_epoch, p_amounts[1], balances[1], v_held_now, batch_time,
        CASE WHEN p_amounts[1] > 0 THEN 'balance.credited' ELSE 'balance.debited' END, v_asset,
        p_references[1], p_actors[1], p_traceparents[1], p_metadata[1]
      );
    ELSE
      SELECT ARRAY[declined.verdict], ARRAY[declined.balance], ARRAY[declined.version], declined.epoch,
             greatest(date_trunc('milliseconds', clock_timestamp()), declined.updated_at)
        INTO outcomes, balances, versions, batch_epoch, batch_time
      FROM (
        SELECT account.*, money_verdict(p_amounts[1], account.balance, -account.overdraft_limit, coalesce(account.max_balance, 9007199254740991)) AS verdict
        FROM account
        WHERE account.account_id = p_accounts[1] AND account.status = 'open' AND account.held = 0 AND (v_is_locked OR p_keys[1] IS NULL)
      ) declined
      WHERE declined.verdict IS NOT NULL;
    END IF;
    IF FOUND THEN
      IF p_keys[1] IS NOT NULL THEN
        INSERT INTO idempotency_key (
          account_id, key, client, fingerprint, outcome, balance, version, epoch, created_at, partition
        ) VALUES (
          p_accounts[1], p_keys[1], coalesce(p_actors[1], ''), p_fingerprints[1], coalesce(outcomes[1], 'applied'),
          balances[1], versions[1], batch_epoch, batch_time,
          (SELECT rotation.partition FROM idempotency_rotation rotation WHERE rotation.only_row)
        );
      END IF;
      RETURN;
    END IF;
  END IF;

  -- Any other batch.
  DECLARE
    v_max CONSTANT bigint := 9007199254740991; -- 2^53 - 1
    v_expiries_max CONSTANT integer := 1000;
    v_precedence CONSTANT text[] := ARRAY[
      'account_not_found', 'account_closed', 'account_frozen', 'asset_mismatch', 'balance_out_of_range', 'max_balance_exceeded',
      'insufficient_funds'
    ];
    v_legs CONSTANT integer := cardinality(p_leg_accounts);
    v_items CONSTANT integer := CASE WHEN p_first_legs IS NULL THEN v_legs ELSE cardinality(p_first_legs) - 1 END;
    v_now timestamptz;
    v_latest timestamptz;
    -- Of each account. v_refusals: why it takes nothing, filled where v_is_troubled.
    v_ids text[];
    v_balances bigint[];
    v_held bigint[];
    v_versions bigint[];
    v_floors bigint[];
    v_ceilings bigint[];
    v_assets text[];
    v_old_versions bigint[];
    v_old_epochs bigint[];
    v_epochs bigint[];
    v_times timestamptz[];
    v_refusals text[];
    v_places integer[]; -- of each account that was sent: its place among the locked ones
    v_statuses text[];
    v_are_open boolean;
    v_are_holding boolean;
    v_is_expired boolean := false;
    v_more_due text[] := '{}'; -- accounts with more due holds than were expired
    v_is_troubled boolean := false;
    v_oldest_epoch bigint;
    v_newest_epoch bigint;
    v_is_even boolean; -- every change gets the epoch and the time of the batch
    v_is_one_epoch boolean; -- all accounts had the same epoch before
    -- Of each item.
    v_known integer[]; -- its place in the v_known_ arrays, where its key was answered before
    v_known_items integer[];
    v_known_same boolean[];
    v_known_outcomes text[];
    v_known_amounts bigint[];
    v_known_balances bigint[];
    v_known_versions bigint[];
    v_known_epochs bigint[];
    v_known_legs text[];
    v_known_holds text[];
    v_known_times timestamptz[];
    v_is_settled boolean := false; -- some item may be a replay
    v_keepers integer[]; -- of the first item with a key: the one whose answer is remembered under it
    v_is_new boolean[]; -- of each item: it was decided here, so its answer is remembered; null: all were
    -- Of each leg.
    v_is_applied boolean[]; -- null: all are
    v_types text[];
    v_held_changes bigint[];
    v_helds bigint[];
    v_reverses text[];
    v_leg_holds integer[];
    v_leg_statuses text[];
    v_leg_remaining bigint[];
    v_leg_expires bigint[];
    -- Of each hold, times in milliseconds since 1970, and of each reversal.
    v_hold_statuses text[];
    v_hold_amounts bigint[];
    v_hold_captured bigint[];
    v_hold_remaining bigint[];
    v_hold_expires bigint[];
    v_hold_clients text[];
    v_hold_fingerprints bytea[];
    v_hold_created bigint[];
    v_hold_updated bigint[];
    v_hold_items integer[]; -- the item that made it
    v_hold_is_changed boolean[];
    v_reversed bigint[];
    v_old_reversed bigint[];
    v_is_changed boolean := false;
    a integer;
    b integer;
    h integer;
    k integer;
    leg integer;
    v_kind text;
    v_first integer;
    v_last integer;
    v_failed integer;
    v_twin integer;
    v_amount bigint;
    v_rest bigint;
    v_balance bigint;
    v_now_ms bigint;
    v_time_ms bigint;
    v_verdict text;
    v_other text;
    v_epoch_digits text;
    v_other_leg record;
  BEGIN
    -- 1. The locks, in one order, so that batches over the same accounts queue instead of
    --    deadlocking. If holds were due, the accounts are read again, but only those already locked:
    --    locking one that was opened since would be out of order.
    LOOP
      SELECT array_agg(l.account_id), array_agg(l.balance), array_agg(l.held), array_agg(l.version), array_agg(l.held - l.overdraft_limit),
             array_agg(coalesce(l.max_balance, 9007199254740991)), array_agg(l.asset), array_agg(l.epoch), array_agg(l.updated_at),
             bool_and(l.status = 'open'), bool_or(l.held > 0), max(l.updated_at), min(l.epoch), max(l.epoch)
        INTO v_ids, v_balances, v_held, v_versions, v_floors, v_ceilings, v_assets, v_old_epochs, v_times,
             v_are_open, v_are_holding, v_latest, v_oldest_epoch, v_newest_epoch
      FROM (
        SELECT account.* FROM account WHERE account.account_id = ANY (coalesce(v_ids, p_accounts)) ORDER BY account.account_id FOR NO KEY UPDATE
      ) l;
      v_now := coalesce(v_now, date_trunc('milliseconds', clock_timestamp()));
      EXIT WHEN v_is_expired OR NOT v_are_holding;
      v_is_expired := true;
      EXIT WHEN NOT EXISTS (
        SELECT FROM unnest(v_ids, v_held) AS locked (account_id, held)
        -- LATERAL with LIMIT 1 is a look-up for each account: a join would read every due hold.
        CROSS JOIN LATERAL (
          SELECT FROM hold
          WHERE hold.account_id = locked.account_id COLLATE "C" AND hold.status = 'active' AND hold.expires_at <= v_now LIMIT 1
        ) due
        WHERE locked.held > 0
      );
      v_more_due := (SELECT done.more_due FROM expire_due_holds(v_ids, v_now, v_expiries_max) AS done);
    END LOOP;

    -- 2. Time and epoch. Neither runs backwards within an account, even if the clock of the machine
    --    does.
    batch_time := v_now;
    SELECT newest.epoch INTO batch_epoch
    FROM (SELECT epoch.*, epoch.tableoid FROM epoch ORDER BY epoch.epoch DESC LIMIT 1) newest
    WHERE newest.timeline = substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)
      AND newest.server_started_at = pg_postmaster_start_time() AND newest.database_name = current_database()
      AND newest.table_oid = newest.tableoid;
    IF NOT FOUND THEN batch_epoch := current_epoch(); END IF;
    v_is_even := v_latest <= v_now AND v_newest_epoch <= batch_epoch;
    v_is_one_epoch := v_is_even AND v_oldest_epoch = batch_epoch;
    v_old_versions := v_versions;

    -- 3. Accounts that are missing or barred, or that were read in another order than they were
    --    sent. An account that was created while this waited was not locked, so it counts as
    --    missing: compared with the locked accounts, never read again.
    IF v_ids IS DISTINCT FROM p_accounts OR NOT v_are_open THEN
      v_is_troubled := true;
      SELECT array_agg(locked.status ORDER BY locked.account_id) INTO v_statuses
      FROM account locked WHERE locked.account_id = ANY (v_ids);
      -- A walk through both, which are in the same order: a join of arrays would compare every
      -- pair.
      v_places := array_fill(NULL::integer, ARRAY[cardinality(p_accounts)]);
      k := 1;
      FOR i IN 1..cardinality(p_accounts) LOOP
        IF p_accounts[i - 1] COLLATE "C" >= p_accounts[i] COLLATE "C" THEN
          RAISE EXCEPTION 'apply_changes needs each account once, in byte order' USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF v_ids[k] = p_accounts[i] THEN
          v_places[i] := k;
          k := k + 1;
        END IF;
      END LOOP;
      SELECT array_agg(v_balances[p.place] ORDER BY p.i), array_agg(v_held[p.place] ORDER BY p.i), array_agg(v_versions[p.place] ORDER BY p.i),
             array_agg(v_floors[p.place] ORDER BY p.i), array_agg(v_ceilings[p.place] ORDER BY p.i), array_agg(v_assets[p.place] ORDER BY p.i),
             array_agg(v_old_epochs[p.place] ORDER BY p.i), array_agg(v_times[p.place] ORDER BY p.i),
             array_agg(CASE WHEN p.place IS NULL THEN 'account_not_found' ELSE 'account_' || nullif(v_statuses[p.place], 'open') END ORDER BY p.i)
        INTO v_balances, v_held, v_versions, v_floors, v_ceilings, v_assets, v_old_epochs, v_times, v_refusals
      FROM unnest(v_places) WITH ORDINALITY AS p (place, i);
      v_old_versions := v_versions;
    END IF;

    IF NOT v_is_even THEN
      SELECT array_agg(greatest(o.epoch, batch_epoch) ORDER BY o.i), array_agg(greatest(o.at, v_now) ORDER BY o.i)
        INTO v_epochs, v_times
      FROM unnest(v_old_epochs, v_times) WITH ORDINALITY AS o (epoch, at, i);
    END IF;

    -- 4. Keys that were answered before, and the holds and reversals of the batch.
    IF p_keys IS NOT NULL THEN
      SELECT array_agg(sent.item), array_agg(known.fingerprint = sent.fingerprint), array_agg(known.outcome), array_agg(known.amount),
             array_agg(known.balance), array_agg(known.version), array_agg(known.epoch), array_agg(known.other_legs::text),
             array_agg(known.hold_state), array_agg(known.created_at)
        INTO v_known_items, v_known_same, v_known_outcomes, v_known_amounts, v_known_balances, v_known_versions, v_known_epochs,
             v_known_legs, v_known_holds, v_known_times
      FROM (
        SELECT u.key, u.fingerprint, u.item::integer AS item,
               coalesce(p_actors[coalesce(p_first_legs[u.item], u.item)], '') AS client,
               p_accounts[coalesce(p_key_accounts[u.item], p_leg_accounts[coalesce(p_first_legs[u.item], u.item)])] AS account_id
        FROM unnest(p_keys, p_fingerprints) WITH ORDINALITY AS u (key, fingerprint, item)
        WHERE u.key IS NOT NULL
      ) sent
      -- LATERAL with LIMIT 1 is a look-up by key whatever the statistics say.
      CROSS JOIN LATERAL (
        SELECT * FROM idempotency_key found
        WHERE found.account_id = sent.account_id AND found.key = sent.key AND found.client = sent.client LIMIT 1
      ) known;
      IF v_known_items IS NOT NULL THEN
        v_known := array_fill(NULL::integer, ARRAY[v_items]);
        FOR i IN 1..cardinality(v_known_items) LOOP v_known[v_known_items[i]] := i; END LOOP;
        v_is_settled := true;
      END IF;
      IF p_same IS NOT NULL THEN
        v_keepers := array_fill(NULL::integer, ARRAY[v_items]);
        v_is_settled := true;
      END IF;
    END IF;
    IF p_hold_ids IS NOT NULL THEN
      SELECT array_agg(CASE WHEN r.status = 'active' AND r.expires_at <= v_now THEN 'expired' ELSE r.status END ORDER BY u.i),
             array_agg(r.amount ORDER BY u.i), array_agg(r.captured ORDER BY u.i), array_agg(r.remaining ORDER BY u.i),
             array_agg((extract(epoch FROM r.expires_at) * 1000)::bigint ORDER BY u.i), array_agg(r.client ORDER BY u.i),
             array_agg(r.fingerprint ORDER BY u.i), array_agg((extract(epoch FROM r.created_at) * 1000)::bigint ORDER BY u.i),
             array_agg((extract(epoch FROM r.updated_at) * 1000)::bigint ORDER BY u.i)
        INTO v_hold_statuses, v_hold_amounts, v_hold_captured, v_hold_remaining, v_hold_expires, v_hold_clients, v_hold_fingerprints,
             v_hold_created, v_hold_updated
      FROM unnest(p_hold_accounts, p_hold_ids) WITH ORDINALITY AS u (account, hold_id, i)
      LEFT JOIN LATERAL (
        SELECT * FROM hold WHERE hold.account_id = p_accounts[u.account] AND hold.hold_id = u.hold_id LIMIT 1
      ) r ON true;
      v_hold_items := array_fill(NULL::integer, ARRAY[cardinality(p_hold_ids)]);
      v_hold_is_changed := array_fill(false, ARRAY[cardinality(p_hold_ids)]);
      hold_states := array_fill(NULL::text, ARRAY[v_items]);
      v_held_changes := array_fill(0::bigint, ARRAY[v_legs]);
      v_helds := array_fill(NULL::bigint, ARRAY[v_legs]);
      v_types := array_fill(NULL::text, ARRAY[v_legs]);
      v_leg_holds := array_fill(NULL::integer, ARRAY[v_legs]);
      v_leg_statuses := v_types;
      v_leg_remaining := v_helds;
      v_leg_expires := v_helds;
      v_now_ms := (extract(epoch FROM v_now) * 1000)::bigint;
    END IF;
    IF p_reversal_ids IS NOT NULL THEN
      SELECT array_agg(coalesce(r.reversed, 0) ORDER BY u.i) INTO v_reversed
      FROM unnest(p_reversal_accounts, p_reversal_versions, p_reversal_epochs) WITH ORDINALITY AS u (account, version, epoch, i)
      LEFT JOIN LATERAL (
        SELECT * FROM reversal
        WHERE reversal.account_id = p_accounts[u.account] AND reversal.version = u.version AND reversal.epoch = u.epoch LIMIT 1
      ) r ON true;
      v_old_reversed := v_reversed;
      v_reverses := array_fill(NULL::text, ARRAY[v_legs]);
    END IF;

    -- 5. One item after the other. Every array is filled first: an element put into a null array at 3 makes one that starts at 3.
    balances := array_fill(NULL::bigint, ARRAY[v_legs]);
    versions := balances;
    IF p_kinds IS NOT NULL OR p_up_to IS NOT NULL THEN amounts := p_amounts; END IF;
    IF p_payers IS NOT NULL THEN v_epoch_digits := epoch_digits(batch_epoch); END IF;
    IF v_is_settled OR p_hold_ids IS NOT NULL THEN
      outcomes := array_fill(NULL::text, ARRAY[v_items]);
      failed_legs := array_fill(NULL::integer, ARRAY[v_items]);
      replayed := array_fill(false, ARRAY[v_items]);
      v_is_new := array_fill(true, ARRAY[v_items]);
      v_is_applied := array_fill(true, ARRAY[v_legs]);
    END IF;
    IF v_is_settled OR NOT v_is_even THEN
      epochs := array_fill(NULL::bigint, ARRAY[v_legs]);
      times := array_fill(NULL::timestamptz, ARRAY[v_legs]);
    END IF;
    FOR i IN 1..v_items LOOP
      v_kind := p_kinds[i];
      IF p_first_legs IS NULL THEN
        v_first := i;
        v_last := i;
      ELSE
        v_first := p_first_legs[i];
        v_last := p_first_legs[i + 1] - 1;
      END IF;

      IF v_is_settled THEN
        k := v_known[i];
        IF k IS NOT NULL THEN
          v_is_new[i] := false;
          FOR l IN v_first..v_last LOOP v_is_applied[l] := false; END LOOP;
          IF NOT v_known_same[k] THEN
            outcomes[i] := 'idempotency_key_reused';
            CONTINUE;
          END IF;
          outcomes[i] := nullif(v_known_outcomes[k], 'applied');
          replayed[i] := true;
          IF hold_states IS NOT NULL THEN hold_states[i] := v_known_holds[k]; END IF;
          leg := v_first;
          IF outcomes[i] IS NOT NULL AND v_known_legs[k] IS NOT NULL THEN
            failed_legs[i] := v_first + (v_known_legs[k]::bigint[])[1];
            leg := failed_legs[i];
          END IF;
          balances[leg] := v_known_balances[k];
          versions[leg] := v_known_versions[k];
          epochs[leg] := v_known_epochs[k];
          times[leg] := v_known_times[k];
          IF v_known_amounts[k] IS NOT NULL THEN
            amounts[leg] := v_known_amounts[k];
            IF v_last > v_first AND v_kind <> 'atomic' AND outcomes[i] IS NULL THEN amounts[v_last] := -v_known_amounts[k]; END IF;
          END IF;
          IF outcomes[i] IS NULL AND v_known_legs[k] IS NOT NULL THEN
            -- OFFSET 0: the text is parsed once, not for each number.
            FOR v_other_leg IN
              SELECT v_first + place.leg AS leg, o.legs[place.leg * 4 - 3] AS balance, o.legs[place.leg * 4 - 2] AS version, o.legs[place.leg * 4 - 1] AS epoch,
                     to_timestamp(0) + o.legs[place.leg * 4] * interval '1 millisecond' AS at
              FROM (SELECT v_known_legs[k]::bigint[] AS legs OFFSET 0) o, generate_series(1, v_last - v_first) AS place (leg)
            LOOP
              balances[v_other_leg.leg] := v_other_leg.balance;
              versions[v_other_leg.leg] := v_other_leg.version;
              epochs[v_other_leg.leg] := v_other_leg.epoch;
              times[v_other_leg.leg] := v_other_leg.at;
            END LOOP;
          END IF;
          CONTINUE;
        END IF;
        v_twin := v_keepers[p_same[i]];
        IF v_twin IS NOT NULL THEN
          v_is_new[i] := false;
          FOR l IN v_first..v_last LOOP v_is_applied[l] := false; END LOOP;
          IF p_fingerprints[v_twin] IS DISTINCT FROM p_fingerprints[i] THEN
            outcomes[i] := 'idempotency_key_reused';
            CONTINUE;
          END IF;
          outcomes[i] := outcomes[v_twin];
          replayed[i] := true;
          IF hold_states IS NOT NULL THEN hold_states[i] := hold_states[v_twin]; END IF;
          leg := coalesce(p_first_legs[v_twin], v_twin);
          failed_legs[i] := failed_legs[v_twin] - leg + v_first;
          FOR l IN v_first..v_last LOOP
            balances[l] := balances[leg];
            versions[l] := versions[leg];
            epochs[l] := epochs[leg];
            times[l] := times[leg];
            IF amounts IS NOT NULL THEN amounts[l] := amounts[leg]; END IF;
            leg := leg + 1;
          END LOOP;
          CONTINUE;
        END IF;
      END IF;

      v_failed := v_first;
      a := p_leg_accounts[v_first];
      IF v_kind IS NULL THEN
        v_amount := p_amounts[v_first];
        IF p_up_to[v_first] THEN v_amount := least(-1, greatest(v_amount, v_floors[a] - v_balances[a])); END IF;
        v_verdict := money_verdict(v_amount, v_balances[a], v_floors[a], v_ceilings[a]);
        -- After the due holds expire, it might take more.
        IF v_amount > p_amounts[v_first] AND p_accounts[a] = ANY (v_more_due) THEN v_verdict := 'insufficient_funds'; END IF;
        IF v_versions[a] <> p_expected_versions[v_first] THEN v_verdict := 'version_mismatch'; END IF;
        IF v_is_troubled AND v_refusals[a] IS NOT NULL THEN v_verdict := v_refusals[a]; END IF;
        IF v_verdict IS NULL THEN
          v_balances[a] := v_balances[a] + v_amount;
          v_versions[a] := v_versions[a] + 1;
          IF amounts IS NOT NULL THEN amounts[v_first] := v_amount; END IF;
        END IF;

      ELSIF v_kind IN ('transfer', 'reversal', 'reversal_rest') THEN
        -- The accounts of its legs differ, so no leg depends on another: all are looked at, and then all take effect.
        v_verdict := NULL;
        v_rest := NULL;
        IF v_kind <> 'transfer' THEN
          h := p_objects[i];
          v_rest := p_reversal_originals[h] - v_reversed[h];
          v_amount := CASE v_kind WHEN 'reversal_rest' THEN v_rest ELSE abs(p_amounts[v_first]) END;
          IF p_reversal_originals[h] IS NULL THEN v_verdict := 'not_reversible';
          ELSIF v_rest = 0 THEN v_verdict := 'already_reversed';
          ELSIF v_amount > v_rest THEN v_verdict := 'reversal_exceeds';
          ELSIF v_kind = 'reversal_rest' AND v_last - v_first < 2 THEN
            FOR l IN v_first..v_last LOOP amounts[l] := sign(p_amounts[l]) * v_amount; END LOOP;
          END IF;
        END IF;
        FOR l IN v_first..v_last LOOP
          b := p_leg_accounts[l];
          v_other := CASE
            WHEN v_is_troubled AND v_refusals[b] IS NOT NULL THEN v_refusals[b]
            WHEN v_assets[b] <> v_assets[a] THEN 'asset_mismatch'
            WHEN v_verdict IN ('not_reversible', 'already_reversed', 'reversal_exceeds') THEN NULL
            -- The maximum balance does not apply to money that an account gets back.
            ELSE money_verdict(amounts[l], v_balances[b], v_floors[b], CASE WHEN v_rest IS NULL THEN v_ceilings[b] ELSE v_max END)
          END;
          IF v_other IS NOT NULL AND (v_verdict IS NULL OR v_verdict IN ('not_reversible', 'already_reversed', 'reversal_exceeds')
              OR array_position(v_precedence, v_other) < array_position(v_precedence, v_verdict)) THEN
            v_verdict := v_other;
            v_failed := l;
          END IF;
        END LOOP;
        IF v_verdict IS NULL THEN
          FOR l IN v_first..v_last LOOP
            b := p_leg_accounts[l];
            v_balances[b] := v_balances[b] + amounts[l];
            v_versions[b] := v_versions[b] + 1;
            balances[l] := v_balances[b];
            versions[l] := v_versions[b];
          END LOOP;
          IF v_rest IS NOT NULL THEN
            FOR l IN v_first..v_last LOOP v_reverses[l] := p_reversal_ids[h]; END LOOP;
            v_reversed[h] := v_reversed[h] + v_amount;
          END IF;
        END IF;

      ELSIF v_kind = 'atomic' THEN
        -- Each update sees what the one before left, and all are undone where one fails.
        v_verdict := NULL;
        FOR l IN v_first..v_last LOOP
          b := p_leg_accounts[l];
          v_amount := p_amounts[l];
          IF p_up_to[l] THEN v_amount := least(-1, greatest(v_amount, v_floors[b] - v_balances[b])); END IF;
          v_verdict := CASE
            WHEN v_is_troubled AND v_refusals[b] IS NOT NULL THEN v_refusals[b]
            WHEN v_versions[b] <> p_expected_versions[l] THEN 'version_mismatch'
            ELSE money_verdict(v_amount, v_balances[b], v_floors[b], v_ceilings[b])
          END;
          IF v_verdict IS NOT NULL THEN
            v_failed := l;
            EXIT;
          END IF;
          v_balances[b] := v_balances[b] + v_amount;
          v_versions[b] := v_versions[b] + 1;
          balances[l] := v_balances[b];
          versions[l] := v_versions[b];
          amounts[l] := v_amount;
        END LOOP;
        IF v_verdict IS NOT NULL THEN
          FOR l IN REVERSE v_failed - 1..v_first LOOP
            b := p_leg_accounts[l];
            v_balances[b] := v_balances[b] - amounts[l];
            v_versions[b] := v_versions[b] - 1;
            balances[l] := NULL;
            versions[l] := NULL;
          END LOOP;
        END IF;

      ELSIF v_kind = 'hold' THEN
        h := p_objects[i];
        v_amount := p_amounts[v_first];
        v_verdict := NULL;
        IF v_hold_statuses[h] IS NOT NULL THEN
          -- The hold itself remembers its request, permanently.
          v_is_new[i] := false;
          v_is_applied[v_first] := false;
          IF v_hold_clients[h] = coalesce(p_actors[v_first], '') AND v_hold_fingerprints[h] = p_fingerprints[i] THEN
            replayed[i] := true;
            hold_states[i] := hold_state(
              v_hold_amounts[h], v_hold_captured[h], CASE v_hold_statuses[h] WHEN 'expired' THEN 0 ELSE v_hold_remaining[h] END,
              v_hold_statuses[h], v_hold_expires[h], v_hold_created[h], v_hold_updated[h]
            );
          ELSE
            outcomes[i] := 'hold_exists';
          END IF;
          CONTINUE;
        END IF;
        v_verdict := CASE
          WHEN v_is_troubled AND v_refusals[a] IS NOT NULL THEN v_refusals[a]
          WHEN v_amount > v_max - v_held[a] THEN 'balance_out_of_range'
          WHEN v_amount > v_balances[a] - v_floors[a] THEN 'insufficient_funds'
        END;
        IF v_verdict IS NULL THEN
          v_time_ms := CASE WHEN v_epochs IS NULL THEN v_now_ms ELSE (extract(epoch FROM v_times[a]) * 1000)::bigint END;
          v_hold_statuses[h] := 'active';
          v_hold_amounts[h] := v_amount;
          v_hold_captured[h] := 0;
          v_hold_remaining[h] := v_amount;
          v_hold_expires[h] := v_now_ms + p_hold_seconds[i] * 1000::bigint;
          v_hold_clients[h] := coalesce(p_actors[v_first], '');
          v_hold_fingerprints[h] := p_fingerprints[i];
          v_hold_created[h] := v_time_ms;
          v_hold_items[h] := i;
          v_types[v_first] := 'hold.placed';
          v_held_changes[v_first] := v_amount;
          amounts[v_first] := 0;
        END IF;

      ELSE -- capture, capture_final, release, hold_change
        h := p_objects[i];
        v_rest := v_hold_remaining[h];
        v_verdict := CASE
          WHEN v_is_troubled AND v_refusals[a] IS NOT NULL AND (v_kind <> 'release' OR v_refusals[a] <> 'account_frozen') THEN v_refusals[a]
        END;
        IF v_last > v_first THEN
          -- The captured amount goes to another account: a refusal there leaves the hold unchanged.
          b := p_leg_accounts[v_last];
          v_other := CASE
            WHEN v_is_troubled AND v_refusals[b] IS NOT NULL THEN v_refusals[b]
            WHEN v_assets[b] <> v_assets[a] THEN 'asset_mismatch'
          END;
          IF v_other IS NOT NULL AND (v_verdict IS NULL OR array_position(v_precedence, v_other) < array_position(v_precedence, v_verdict)) THEN
            v_verdict := v_other;
            v_failed := v_last;
          END IF;
        END IF;
        v_amount := CASE v_kind
          WHEN 'hold_change' THEN coalesce(p_amounts[v_first], v_hold_amounts[h]) - v_hold_amounts[h] -- by how much it is raised
          WHEN 'release' THEN coalesce(p_amounts[v_first], v_rest)
          ELSE coalesce(-p_amounts[v_first], v_rest)
        END;
        v_verdict := CASE
          WHEN v_verdict IS NOT NULL THEN v_verdict
          WHEN v_hold_statuses[h] IS NULL THEN 'hold_not_found'
          WHEN v_hold_statuses[h] IN ('captured', 'released') THEN 'hold_closed'
          WHEN v_hold_statuses[h] = 'expired' THEN 'hold_expired'
          WHEN v_amount > v_rest AND v_kind <> 'hold_change' THEN 'hold_amount_exceeded'
          WHEN v_kind = 'hold_change' AND v_rest + v_amount <= 0 THEN 'hold_amount_exceeded'
          WHEN v_kind = 'hold_change' AND v_amount > v_max - v_held[a] THEN 'balance_out_of_range'
          WHEN v_kind = 'hold_change' AND v_amount > v_balances[a] - v_floors[a] THEN 'insufficient_funds'
        END;
        IF v_verdict IS NULL AND v_last > v_first THEN
          amounts[v_last] := v_amount;
          v_verdict := money_verdict(v_amount, v_balances[b], v_floors[b], v_ceilings[b]);
          IF v_verdict IS NOT NULL THEN v_failed := v_last; END IF;
        END IF;
        IF v_verdict IN ('hold_closed', 'hold_expired') THEN
          hold_states[i] := hold_state(
            v_hold_amounts[h], v_hold_captured[h], CASE v_hold_statuses[h] WHEN 'expired' THEN 0 ELSE v_rest END, v_hold_statuses[h],
            v_hold_expires[h], v_hold_created[h], v_hold_updated[h]
          );
        END IF;
        IF v_verdict IS NULL THEN
          IF v_kind = 'hold_change' THEN
            v_types[v_first] := 'hold.changed';
            v_held_changes[v_first] := v_amount;
            v_hold_amounts[h] := v_hold_amounts[h] + v_amount;
            amounts[v_first] := 0;
            IF p_hold_seconds[i] IS NOT NULL THEN
              v_hold_expires[h] := CASE WHEN p_hold_seconds[i] > 0 THEN v_now_ms + p_hold_seconds[i] * 1000::bigint END;
            END IF;
          ELSIF v_kind = 'release' THEN
            v_types[v_first] := 'hold.released';
            v_held_changes[v_first] := -v_amount;
            amounts[v_first] := 0;
            IF v_amount = v_rest THEN v_hold_statuses[h] := 'released'; END IF;
          ELSE
            v_held_changes[v_first] := CASE v_kind WHEN 'capture_final' THEN -v_rest ELSE -v_amount END;
            v_hold_captured[h] := v_hold_captured[h] + v_amount;
            amounts[v_first] := -v_amount;
            v_balances[a] := v_balances[a] - v_amount;
            IF v_held_changes[v_first] = -v_rest THEN v_hold_statuses[h] := 'captured'; END IF;
            IF v_last > v_first THEN
              amounts[v_last] := v_amount;
              v_balances[b] := v_balances[b] + v_amount;
              v_versions[b] := v_versions[b] + 1;
              balances[v_last] := v_balances[b];
              versions[v_last] := v_versions[b];
              v_helds[v_last] := v_held[b];
            END IF;
          END IF;
          v_hold_remaining[h] := v_rest + v_held_changes[v_first];
          v_hold_is_changed[h] := true;
        END IF;
      END IF;

      -- Shared by all kinds.
      IF v_verdict IS NULL THEN
        v_is_changed := true;
        IF v_types[v_first] IS NOT NULL OR v_held_changes[v_first] <> 0 THEN
          v_time_ms := CASE WHEN v_epochs IS NULL THEN v_now_ms ELSE (extract(epoch FROM v_times[a]) * 1000)::bigint END;
          v_held[a] := v_held[a] + v_held_changes[v_first];
          v_floors[a] := v_floors[a] + v_held_changes[v_first];
          v_versions[a] := v_versions[a] + 1;
          v_hold_updated[h] := v_time_ms;
          v_leg_holds[v_first] := h;
          v_leg_statuses[v_first] := v_hold_statuses[h];
          v_leg_remaining[v_first] := v_hold_remaining[h];
          v_leg_expires[v_first] := v_hold_expires[h];
          hold_states[i] := hold_state(
            v_hold_amounts[h], v_hold_captured[h], v_hold_remaining[h], v_hold_statuses[h], v_hold_expires[h], v_hold_created[h], v_time_ms
          );
        END IF;
        IF v_last = v_first OR v_types[v_first] IS NOT NULL OR v_held_changes[v_first] <> 0 THEN
          balances[v_first] := v_balances[a];
          versions[v_first] := v_versions[a];
        END IF;
        IF v_helds IS NOT NULL THEN
          FOR l IN v_first..v_last LOOP v_helds[l] := v_held[p_leg_accounts[l]]; END LOOP;
        END IF;
      ELSE
        IF outcomes IS NULL THEN
          outcomes := array_fill(NULL::text, ARRAY[v_items]);
          failed_legs := array_fill(NULL::integer, ARRAY[v_items]);
          v_is_new := array_fill(true, ARRAY[v_items]);
          v_is_applied := array_fill(true, ARRAY[v_legs]);
        END IF;
        a := p_leg_accounts[v_failed];
        IF v_verdict = 'insufficient_funds' AND v_more_due <> '{}' AND p_accounts[a] = ANY (v_more_due) THEN v_verdict := 'overloaded'; END IF;
        outcomes[i] := v_verdict;
        failed_legs[i] := v_failed;
        FOR l IN v_first..v_last LOOP v_is_applied[l] := false; END LOOP;
        v_is_new[i] := v_verdict IN (
          'version_mismatch', 'hold_amount_exceeded', 'reversal_exceeds', 'balance_out_of_range', 'max_balance_exceeded', 'insufficient_funds'
        );
        IF v_is_new[i] AND p_forgotten[i] AND p_keys[i] IS NOT NULL THEN
          outcomes[i] := 'rate_limited';
          v_is_new[i] := false;
        END IF;
        CONTINUE WHEN NOT v_is_new[i];
        balances[v_failed] := v_balances[a];
        versions[v_failed] := v_versions[a];
      END IF;
      IF v_keepers IS NOT NULL THEN v_keepers[p_same[i]] := i; END IF;
      IF NOT v_is_even THEN
        FOR l IN v_first..v_last LOOP
          b := p_leg_accounts[l];
          epochs[l] := v_epochs[b];
          times[l] := v_times[b];
        END LOOP;
      END IF;
    END LOOP;

    -- 6. What changed, each table once.
    IF v_is_changed THEN
      UPDATE account
      SET balance = after.balance, held = after.held, version = after.version, epoch = coalesce(after.epoch, batch_epoch),
          updated_at = CASE WHEN v_epochs IS NULL THEN v_now ELSE after.at END
      FROM unnest(p_accounts, v_balances, v_held, v_versions, v_epochs, v_times) AS after (account_id, balance, held, version, epoch, at)
      WHERE account.account_id = after.account_id AND account.version <> after.version;

      INSERT INTO outbox (
        account_id, version, epoch, previous_epoch, amount, held_change, balance, held, created_at, type, asset, reference, actor,
        traceparent, metadata, transfer_id, reverses, hold_id, hold_status, hold_remaining, hold_expires_at
      )
      SELECT p_accounts[leg.account], leg.version, coalesce(leg.epoch, batch_epoch),
             CASE WHEN v_is_one_epoch OR leg.version > v_old_versions[leg.account] + 1 THEN coalesce(leg.epoch, batch_epoch)
                  ELSE v_old_epochs[leg.account] END,
             coalesce(leg.moved, leg.amount), coalesce(leg.held_change, 0), leg.balance, coalesce(leg.held, v_held[leg.account]),
             coalesce(leg.at, v_now),
             coalesce(leg.type, CASE WHEN coalesce(leg.moved, leg.amount) > 0 THEN 'balance.credited' ELSE 'balance.debited' END),
             v_assets[leg.account], leg.reference, leg.actor, leg.traceparent, leg.metadata,
             CASE WHEN leg.payer IS NOT NULL THEN
               p_accounts[p_leg_accounts[leg.payer]] || ':' || versions[leg.payer]::text || ':' || CASE
                 WHEN coalesce(epochs[leg.payer], batch_epoch) = batch_epoch THEN v_epoch_digits
                 ELSE epoch_digits(epochs[leg.payer])
               END
             END,
             leg.reverses, p_hold_ids[leg.hold], leg.hold_status, leg.hold_remaining,
             to_timestamp(0) + leg.hold_expires * interval '1 millisecond'
      FROM unnest(
        p_leg_accounts, p_amounts, amounts, v_held_changes, balances, v_helds, versions, epochs, times, v_is_applied, v_types, p_references,
        p_actors, p_traceparents, p_metadata, p_payers, v_reverses, v_leg_holds, v_leg_statuses, v_leg_remaining, v_leg_expires
      ) WITH ORDINALITY AS leg (
        account, amount, moved, held_change, balance, held, version, epoch, at, is_applied, type, reference,
        actor, traceparent, metadata, payer, reverses, hold, hold_status, hold_remaining, hold_expires, i
      )
      WHERE leg.is_applied IS NOT FALSE
      ORDER BY leg.i;

      IF p_hold_ids IS NOT NULL THEN
        INSERT INTO hold (
          account_id, hold_id, amount, captured, remaining, status, expires_at, client, fingerprint, reference, metadata, created_at, updated_at
        )
        SELECT p_accounts[h.account], h.hold_id, h.amount, h.captured, h.remaining, h.status,
               to_timestamp(0) + h.expires_at * interval '1 millisecond', h.client, h.fingerprint,
               p_references[p_first_legs[h.item]], p_metadata[p_first_legs[h.item]],
               to_timestamp(0) + h.created_at * interval '1 millisecond', to_timestamp(0) + h.updated_at * interval '1 millisecond'
        FROM unnest(
          p_hold_accounts, p_hold_ids, v_hold_amounts, v_hold_captured, v_hold_remaining, v_hold_statuses, v_hold_expires, v_hold_clients,
          v_hold_fingerprints, v_hold_created, v_hold_updated, v_hold_items
        ) AS h (account, hold_id, amount, captured, remaining, status, expires_at, client, fingerprint, created_at, updated_at, item)
        WHERE h.item IS NOT NULL;

        UPDATE hold
        SET amount = after.amount, captured = after.captured, remaining = after.remaining, status = after.status,
            expires_at = to_timestamp(0) + after.expires_at * interval '1 millisecond',
            updated_at = to_timestamp(0) + after.updated_at * interval '1 millisecond'
        FROM unnest(
          p_hold_accounts, p_hold_ids, v_hold_amounts, v_hold_captured, v_hold_remaining, v_hold_statuses, v_hold_expires, v_hold_updated,
          v_hold_items, v_hold_is_changed
        ) AS after (account, hold_id, amount, captured, remaining, status, expires_at, updated_at, item, is_changed)
        WHERE hold.account_id = p_accounts[after.account] AND hold.hold_id = after.hold_id AND after.is_changed AND after.item IS NULL;
      END IF;

      IF p_reversal_ids IS NOT NULL THEN
        INSERT INTO reversal AS known (account_id, version, epoch, original, reversed)
        SELECT p_accounts[r.account], r.version, r.epoch, r.original, r.reversed
        FROM unnest(p_reversal_accounts, p_reversal_versions, p_reversal_epochs, p_reversal_originals, v_reversed, v_old_reversed)
          AS r (account, version, epoch, original, reversed, old_reversed)
        WHERE r.reversed > r.old_reversed
        ON CONFLICT (account_id, version, epoch) DO UPDATE SET reversed = excluded.reversed;
      END IF;
    END IF;

    IF p_keys IS NOT NULL THEN
      INSERT INTO idempotency_key (
        account_id, key, client, fingerprint, outcome, amount, balance, version, epoch, other_legs, hold_state, created_at, partition
      )
      SELECT p_accounts[coalesce(p_key_accounts[item.i], p_leg_accounts[item.leg])], item.key, coalesce(p_actors[item.leg], ''),
             item.fingerprint, coalesce(item.outcome, 'applied'),
             nullif(amounts[item.answering], p_amounts[item.answering]), balances[item.answering], versions[item.answering],
             coalesce(epochs[item.answering], batch_epoch),
             CASE
               WHEN item.last = item.leg THEN NULL
               WHEN item.outcome IS NOT NULL THEN ARRAY[item.answering - item.leg]
               ELSE (
                 SELECT array_agg(
                   CASE n % 4 WHEN 1 THEN balances[l] WHEN 2 THEN versions[l] WHEN 3 THEN coalesce(epochs[l], batch_epoch)
                              ELSE (extract(epoch FROM coalesce(times[l], v_now)) * 1000)::bigint END
                   ORDER BY n
                 )
                 FROM generate_series(1, 4 * (item.last - item.leg)) AS n CROSS JOIN LATERAL (SELECT item.leg + (n + 3) / 4 AS l) place
               )
             END,
             item.hold_state, coalesce(times[item.answering], v_now),
             (SELECT rotation.partition FROM idempotency_rotation rotation WHERE rotation.only_row)
      FROM (
        SELECT one.*, coalesce(p_first_legs[one.i], one.i)::integer AS leg, coalesce(p_first_legs[one.i + 1] - 1, one.i)::integer AS last,
               coalesce(one.failed_leg, p_first_legs[one.i], one.i)::integer AS answering
        FROM unnest(p_keys, p_fingerprints, outcomes, failed_legs, hold_states, v_is_new)
          WITH ORDINALITY AS one (key, fingerprint, outcome, failed_leg, hold_state, is_new, i)
        WHERE one.key IS NOT NULL AND one.is_new IS NOT FALSE
      ) item;
    END IF;
  END;
END
$function$;

CREATE OR REPLACE FUNCTION change_account(p_account_id text, p_change jsonb, p_actor text, p_traceparent text, OUT outcome text, OUT account account)
 RETURNS record
 LANGUAGE plpgsql
AS $function$
DECLARE
  v_overdraft_limit bigint;
  v_max_balance bigint;
  v_status text;
  v_previous_epoch bigint;
  v_now timestamptz;
BEGIN
  -- A separate statement: the next one sees what the previous holder of the lock committed.
  SELECT locked.* INTO account FROM account locked WHERE locked.account_id = p_account_id FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    outcome := 'account_not_found';
    RETURN;
  END IF;
  -- Expired amounts are no longer held. This does not change limits and status, which are checked
  -- below.
  v_now := date_trunc('milliseconds', clock_timestamp());
  IF account.held > 0 THEN
    IF (SELECT done.more_due FROM expire_due_holds(ARRAY[p_account_id], v_now, 1000) AS done) <> '{}' THEN
      outcome := 'overloaded';
      RETURN;
    END IF;
    SELECT locked.* INTO account FROM account locked WHERE locked.account_id = p_account_id;
  END IF;
  v_overdraft_limit := coalesce((p_change ->> 'overdraftLimit')::bigint, account.overdraft_limit);
  v_max_balance := CASE WHEN p_change ? 'maxBalance' THEN (p_change ->> 'maxBalance')::bigint ELSE account.max_balance END;
  v_status := coalesce(p_change ->> 'status', account.status);
  outcome := CASE
    WHEN (v_overdraft_limit, v_max_balance, v_status)
         IS NOT DISTINCT FROM (account.overdraft_limit, account.max_balance, account.status) THEN 'unchanged'
    WHEN account.status = 'closed' THEN 'account_closed'
    WHEN account.balance - account.held < -v_overdraft_limit THEN 'overdraft_limit_too_low'
    WHEN v_status = 'closed' AND (account.balance <> 0 OR account.held <> 0) THEN 'account_not_empty'
    ELSE 'changed'
  END;
  IF outcome <> 'changed' THEN RETURN; END IF;

  v_previous_epoch := account.epoch;
  UPDATE account AS one
  SET overdraft_limit = v_overdraft_limit, max_balance = v_max_balance, status = v_status, version = one.version + 1,
      epoch = greatest(current_epoch(), one.epoch),
      updated_at = greatest(v_now, one.updated_at)
  WHERE one.account_id = p_account_id
  RETURNING one.* INTO account;
  INSERT INTO outbox (
    account_id, version, epoch, previous_epoch, balance, held, created_at, type, asset, actor, traceparent,
    overdraft_limit, max_balance, status
  ) VALUES (
    account.account_id, account.version, account.epoch, v_previous_epoch, account.balance, account.held, account.updated_at,
    'account.changed', account.asset, p_actor, p_traceparent, v_overdraft_limit, v_max_balance, v_status
  );
END
$function$;
GRANT EXECUTE ON FUNCTION change_account TO balance_api;

CREATE OR REPLACE FUNCTION current_epoch()
 RETURNS bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'public', 'pg_temp'
AS $function$
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
$function$;
GRANT EXECUTE ON FUNCTION current_epoch TO balance_api;
GRANT EXECUTE ON FUNCTION current_epoch TO balance_worker;

CREATE OR REPLACE FUNCTION epoch_digits(epoch bigint)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
AS $function$
  SELECT ltrim(
    substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 3656158440062976 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 101559956668416 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 2821109907456 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 78364164096 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 2176782336 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 60466176 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 1679616 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 46656 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 1296 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 36 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch % 36)::integer + 1, 1),
    '0'
  )
$function$;
GRANT EXECUTE ON FUNCTION epoch_digits TO balance_api;
GRANT EXECUTE ON FUNCTION epoch_digits TO balance_auditor;

CREATE OR REPLACE FUNCTION event_id(account_id text, version bigint, epoch bigint)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
AS $function$
  SELECT account_id || ':' || version::text || ':' || epoch_digits(epoch)
$function$;
GRANT EXECUTE ON FUNCTION event_id TO balance_api;
GRANT EXECUTE ON FUNCTION event_id TO balance_auditor;

CREATE OR REPLACE FUNCTION expire_due_holds(p_account_ids text[], p_now timestamp with time zone, p_holds_max integer, OUT expired integer, OUT more_due text[])
 RETURNS record
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
 SET jit TO 'off'
AS $function$
BEGIN
  WITH due AS MATERIALIZED (
    SELECT hold.account_id, hold.hold_id, hold.remaining, hold.expires_at,
           row_number() OVER in_order AS place, sum(hold.remaining) OVER in_order AS released
    FROM (
      SELECT one.* FROM unnest(p_account_ids) AS wanted (account_id)
      CROSS JOIN LATERAL (
        SELECT * FROM hold
        WHERE hold.account_id = wanted.account_id COLLATE "C" AND hold.status = 'active' AND hold.expires_at <= p_now
        ORDER BY hold.expires_at LIMIT p_holds_max
      ) one
      LIMIT p_holds_max
    ) hold
    WINDOW in_order AS (PARTITION BY hold.account_id ORDER BY hold.expires_at, hold.hold_id)
  ),
  before AS MATERIALIZED (
    SELECT account.account_id, account.asset, account.balance, account.held, account.version, account.epoch,
           greatest(current.epoch, account.epoch) AS new_epoch, greatest(p_now, account.updated_at) AS at
    FROM (SELECT DISTINCT due.account_id FROM due) one
    CROSS JOIN LATERAL (SELECT * FROM account WHERE account.account_id = one.account_id LIMIT 1) account
    CROSS JOIN (SELECT current_epoch() AS epoch) current
  ),
  ended AS (
    UPDATE hold SET status = 'expired', remaining = 0, updated_at = before.at
    FROM due JOIN before ON before.account_id = due.account_id
    WHERE hold.account_id = due.account_id AND hold.hold_id = due.hold_id
  ),
  queued AS (
    INSERT INTO outbox (
      account_id, version, epoch, previous_epoch, held_change, balance, held, created_at, type, asset,
      hold_id, hold_status, hold_remaining, hold_expires_at
    )
    SELECT due.account_id, before.version + due.place, before.new_epoch, CASE due.place WHEN 1 THEN before.epoch ELSE before.new_epoch END,
           -due.remaining, before.balance, before.held - due.released, before.at, 'hold.expired', before.asset,
           due.hold_id, 'expired', 0, due.expires_at
    FROM due JOIN before ON before.account_id = due.account_id
    ORDER BY due.account_id, due.place
    RETURNING 1
  ),
  changed AS (
    UPDATE account
    SET held = account.held - total.released, version = account.version + total.holds, epoch = total.new_epoch, updated_at = total.at
    FROM (
      SELECT due.account_id, sum(due.remaining) AS released, count(*) AS holds, min(before.new_epoch) AS new_epoch, min(before.at) AS at
      FROM due JOIN before ON before.account_id = due.account_id
      GROUP BY due.account_id
    ) total
    WHERE account.account_id = total.account_id
  )
  SELECT count(*) INTO expired FROM queued;

  more_due := '{}';
  IF expired = p_holds_max THEN
    SELECT coalesce(array_agg(wanted.account_id), '{}') INTO more_due
    FROM unnest(p_account_ids) AS wanted (account_id)
    CROSS JOIN LATERAL (
      SELECT FROM hold
      WHERE hold.account_id = wanted.account_id COLLATE "C" AND hold.status = 'active' AND hold.expires_at <= p_now LIMIT 1
    ) due;
  END IF;
END
$function$;
GRANT EXECUTE ON FUNCTION expire_due_holds TO balance_api;

CREATE OR REPLACE FUNCTION expire_idempotency_keys(p_kept interval)
 RETURNS boolean
 LANGUAGE plpgsql
 SET lock_timeout TO '40ms'
AS $function$
DECLARE
  v_written smallint;
BEGIN
  SELECT partition INTO v_written FROM idempotency_rotation WHERE since <= clock_timestamp() - p_kept FOR UPDATE SKIP LOCKED;
  IF v_written IS NULL THEN RETURN false; END IF;
  -- Every batch holds a lock on both partitions from before its snapshot to its end, so none is in
  -- flight here, and the next one sees the change: nothing more is written to the old partition.
  IF v_written = 0 THEN TRUNCATE idempotency_key_odd; ELSE TRUNCATE idempotency_key_even; END IF;
  UPDATE idempotency_rotation SET partition = 1 - v_written, since = clock_timestamp();
  RETURN true;
END
$function$;
GRANT EXECUTE ON FUNCTION expire_idempotency_keys TO balance_api;

CREATE OR REPLACE FUNCTION extend_ledger_chain(p_account_ids text[], p_entries_max integer, OUT hashed integer, OUT unfinished text[])
 RETURNS record
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
 SET enable_bitmapscan TO 'off'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
 SET jit TO 'off'
AS $function$
DECLARE
  v_segment_entries_max CONSTANT integer := 1000;
  -- For each account: its head, and the entries after it that fit into a segment. Their order is
  -- that of the subquery: a sort of the texts would cost a tenth of all this.
  v_accounts CURSOR FOR
    SELECT wanted.account_id, coalesce(head.last_version, -1) AS head_version,
           coalesce(head.hash, decode(repeat('00', 32), 'hex')) AS head_hash, waiting.*
    FROM unnest(p_account_ids) AS wanted (account_id)
    LEFT JOIN LATERAL (
      SELECT chain.last_version, chain.hash FROM ledger_chain chain
      WHERE chain.account_id = wanted.account_id COLLATE "C" ORDER BY chain.last_version DESC LIMIT 1
    ) head ON true
    CROSS JOIN LATERAL (
      SELECT count(*)::integer AS entries, max(entry.version) AS last_version, string_agg(entry.text, '],[') AS text
      FROM (
        SELECT ledger.version, ledger_entry_text(ledger) AS text FROM ledger
        WHERE ledger.account_id = wanted.account_id COLLATE "C" AND ledger.version > coalesce(head.last_version, -1)
          -- Entries after a gap are not even read: there may be many, and the next call would read
          -- them again.
          AND EXISTS (
            SELECT FROM ledger next
            WHERE next.account_id = wanted.account_id COLLATE "C" AND next.version = coalesce(head.last_version, -1) + 1
          )
        ORDER BY ledger.version
        LIMIT least(v_segment_entries_max, p_entries_max)
      ) entry
    ) waiting;
  v_account record;
  v_last bigint; -- version that the chain of the account reaches
  v_hash bytea;
  v_entries integer; -- read after it: how many, the version of the newest, their texts
  v_read_to bigint;
  v_text text;
  v_has_gap boolean;
  v_due integer; -- of these, the ones that make a segment
  v_account_ids text[] := '{}';
  v_firsts bigint[] := '{}';
  v_lasts bigint[] := '{}';
  v_hashes bytea[] := '{}';
BEGIN
  -- One call at a time, so that two workers do not hash the same entries twice. The lock has a
  -- statement of its own, so that the statements after it see the hashes of the previous call. The
  -- key is any number, the same for every worker.
  PERFORM pg_advisory_xact_lock(7252310003);

  hashed := 0;
  -- A cursor, since a FOR loop would read dozens of accounts ahead of what p_entries_max allows.
  OPEN v_accounts;
  WHILE hashed < p_entries_max LOOP
    FETCH v_accounts INTO v_account;
    EXIT WHEN NOT FOUND;
    v_last := v_account.head_version;
    v_hash := v_account.head_hash;
    v_entries := v_account.entries;
    v_read_to := v_account.last_version;
    v_text := v_account.text;
    LOOP
      v_due := least(v_entries, p_entries_max - hashed);
      v_has_gap := v_read_to > v_last + v_entries;
      IF v_has_gap THEN
        SELECT least(v_due, count(*)) INTO v_due
        FROM (
          SELECT entry.version, row_number() OVER (ORDER BY entry.version) AS place
          FROM (
            SELECT ledger.version FROM ledger
            WHERE ledger.account_id = v_account.account_id COLLATE "C" AND ledger.version > v_last
            ORDER BY ledger.version LIMIT v_entries
          ) entry
        ) placed
        WHERE placed.version = v_last + placed.place;
      END IF;
      EXIT WHEN v_due = 0;
      -- Read the texts again, by version. The count above may include entries that filled a gap
      -- after the first read; this statement sees them too.
      IF v_has_gap OR v_due < v_entries THEN
        SELECT string_agg(entry.text, '],[') INTO v_text
        FROM (
          SELECT ledger_entry_text(ledger) AS text FROM ledger
          WHERE ledger.account_id = v_account.account_id COLLATE "C" AND ledger.version BETWEEN v_last + 1 AND v_last + v_due
          ORDER BY ledger.version
        ) entry;
      END IF;
      v_hash := ledger_segment_hash(v_hash, v_account.account_id, v_text);
      v_account_ids := v_account_ids || v_account.account_id;
      v_firsts := v_firsts || (v_last + 1);
      v_last := v_last + v_due;
      v_lasts := v_lasts || v_last;
      v_hashes := v_hashes || v_hash;
      hashed := hashed + v_due;
      EXIT WHEN v_due < v_segment_entries_max OR hashed = p_entries_max;
      SELECT count(*), max(entry.version), string_agg(entry.text, '],[') INTO v_entries, v_read_to, v_text
      FROM (
        SELECT ledger.version, ledger_entry_text(ledger) AS text FROM ledger
        WHERE ledger.account_id = v_account.account_id COLLATE "C" AND ledger.version > v_last
        ORDER BY ledger.version LIMIT least(v_segment_entries_max, p_entries_max - hashed)
      ) entry;
    END LOOP;
  END LOOP;
  CLOSE v_accounts;
  INSERT INTO ledger_chain (account_id, first_version, last_version, hash)
  SELECT * FROM unnest(v_account_ids, v_firsts, v_lasts, v_hashes);

  unfinished := '{}';
  IF hashed = p_entries_max THEN
    SELECT coalesce(array_agg(wanted.account_id), '{}') INTO unfinished
    FROM unnest(p_account_ids) AS wanted (account_id)
    WHERE EXISTS (
      SELECT FROM ledger
      WHERE ledger.account_id = wanted.account_id COLLATE "C"
        AND ledger.version = 1 + coalesce((
          SELECT chain.last_version FROM ledger_chain chain
          WHERE chain.account_id = wanted.account_id COLLATE "C" ORDER BY chain.last_version DESC LIMIT 1
        ), -1)
    );
  END IF;
END
$function$;
GRANT EXECUTE ON FUNCTION extend_ledger_chain TO balance_worker;

CREATE OR REPLACE FUNCTION hold_state(amount bigint, captured bigint, remaining bigint, status text, expires_at bigint, created_at bigint, updated_at bigint)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
AS $function$
  SELECT '{"amount":' || amount::text || ',"captured":' || captured::text || ',"remaining":' || remaining::text
    || ',"status":"' || status || '","expiresAt":' || coalesce(expires_at::text, 'null')
    || ',"createdAt":' || created_at::text || ',"updatedAt":' || updated_at::text || '}'
$function$;
GRANT EXECUTE ON FUNCTION hold_state TO balance_api;

CREATE OR REPLACE FUNCTION last_shared_version(p_account_id text, p_epoch bigint)
 RETURNS bigint
 LANGUAGE plpgsql
 STABLE
AS $function$
DECLARE
  v_shared bigint := -1;
  v_last bigint := coalesce((SELECT account.version FROM account WHERE account.account_id = p_account_id), -1);
  v_middle bigint;
BEGIN
  WHILE v_shared < v_last LOOP
    v_middle := (v_shared + v_last + 1) / 2;
    IF EXISTS (SELECT FROM ledger WHERE ledger.account_id = p_account_id AND ledger.version = v_middle AND ledger.epoch <= p_epoch)
       OR EXISTS (SELECT FROM outbox WHERE outbox.account_id = p_account_id AND outbox.version = v_middle AND outbox.epoch <= p_epoch)
    THEN
      v_shared := v_middle;
    ELSE
      v_last := v_middle - 1;
    END IF;
  END LOOP;
  RETURN v_shared;
END
$function$;
GRANT EXECUTE ON FUNCTION last_shared_version TO balance_api;
GRANT EXECUTE ON FUNCTION last_shared_version TO balance_auditor;

CREATE OR REPLACE FUNCTION ledger_entry_text(entry ledger)
 RETURNS text
 LANGUAGE sql
 STABLE PARALLEL SAFE
AS $function$
  SELECT concat_ws(',',
    entry.version,
    entry.epoch,
    coalesce(entry.previous_epoch::text, 'null'),
    CASE entry.type
      WHEN 'balance.credited' THEN '"balance.credited"'
      WHEN 'balance.debited' THEN '"balance.debited"'
      ELSE to_json(entry.type)::text
    END,
    to_json(entry.asset),
    entry.amount,
    entry.held_change,
    entry.balance,
    entry.held,
    to_json(entry.created_at AT TIME ZONE 'UTC'),
    coalesce(to_json(entry.reference), 'null'),
    coalesce(to_json(entry.actor), 'null'),
    CASE WHEN num_nonnulls(
      entry.hold_id, entry.hold_status, entry.hold_remaining, entry.hold_expires_at, entry.overdraft_limit, entry.max_balance,
      entry.status, entry.metadata, entry.reverses, entry.transfer_id
    ) > 0 THEN
      '{' || concat_ws(',',
        CASE WHEN num_nonnulls(entry.hold_id, entry.hold_status, entry.hold_remaining, entry.hold_expires_at) > 0 THEN
          '"hold":{' || concat_ws(',',
            '"expiresAt":' || to_json(entry.hold_expires_at AT TIME ZONE 'UTC')::text,
            '"id":' || to_json(entry.hold_id)::text,
            '"remaining":' || entry.hold_remaining::text,
            '"status":' || to_json(entry.hold_status)::text
          ) || '}'
        END,
        CASE WHEN num_nonnulls(entry.overdraft_limit, entry.max_balance, entry.status) > 0 THEN
          '"limits":{' || concat_ws(',',
            '"maxBalance":' || entry.max_balance::text,
            '"overdraftLimit":' || entry.overdraft_limit::text,
            '"status":' || to_json(entry.status)::text
          ) || '}'
        END,
        -- As a string, so that its content cannot pass for another member.
        '"metadata":' || to_json(entry.metadata)::text,
        '"reverses":' || to_json(entry.reverses)::text,
        '"transferId":' || to_json(entry.transfer_id)::text
      ) || '}'
    END
  )
$function$;
GRANT EXECUTE ON FUNCTION ledger_entry_text TO balance_api;
GRANT EXECUTE ON FUNCTION ledger_entry_text TO balance_auditor;
GRANT EXECUTE ON FUNCTION ledger_entry_text TO balance_worker;

CREATE OR REPLACE FUNCTION ledger_segment_hash(hash_before bytea, account_id text, entries text)
 RETURNS bytea
 LANGUAGE sql
 STABLE PARALLEL SAFE
AS $function$
  SELECT sha256(hash_before || convert_to(concat('[', to_json(account_id), ',[', entries, ']]'), 'UTF8'))
$function$;
GRANT EXECUTE ON FUNCTION ledger_segment_hash TO balance_api;
GRANT EXECUTE ON FUNCTION ledger_segment_hash TO balance_auditor;
GRANT EXECUTE ON FUNCTION ledger_segment_hash TO balance_worker;

CREATE OR REPLACE FUNCTION money_verdict(amount bigint, balance bigint, floor bigint, ceiling bigint)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
AS $function$
  SELECT CASE
    WHEN amount > 0 THEN
      CASE
        WHEN amount <= ceiling - balance THEN NULL
        WHEN amount <= 9007199254740991 - balance THEN 'max_balance_exceeded'
        ELSE 'balance_out_of_range'
      END
    WHEN amount >= floor - balance THEN NULL
    WHEN amount < -9007199254740991 - balance THEN 'balance_out_of_range'
    ELSE 'insufficient_funds'
  END
$function$;
GRANT EXECUTE ON FUNCTION money_verdict TO balance_api;

CREATE OR REPLACE FUNCTION open_account(p_account_id text, p_asset text, p_overdraft_limit bigint, p_max_balance bigint, p_actor text, p_traceparent text, OUT opened boolean, OUT account account)
 RETURNS record
 LANGUAGE plpgsql
AS $function$
DECLARE
  v_now CONSTANT timestamptz := date_trunc('milliseconds', clock_timestamp());
BEGIN
  INSERT INTO account AS new (account_id, asset, epoch, overdraft_limit, max_balance, created_at, updated_at)
  VALUES (p_account_id, p_asset, current_epoch(), p_overdraft_limit, p_max_balance, v_now, v_now)
  ON CONFLICT (account_id) DO NOTHING
  RETURNING new.* INTO account;
  opened := FOUND;
  IF opened THEN
    INSERT INTO outbox (
      account_id, version, epoch, balance, created_at, type, asset, actor, traceparent, overdraft_limit, max_balance, status
    ) VALUES (
      account.account_id, 0, account.epoch, 0, v_now, 'account.opened', account.asset, p_actor, p_traceparent,
      account.overdraft_limit, account.max_balance, account.status
    );
  ELSE
    SELECT existing.* INTO account FROM account existing WHERE existing.account_id = p_account_id;
  END IF;
END
$function$;
GRANT EXECUTE ON FUNCTION open_account TO balance_api;

CREATE OR REPLACE FUNCTION raise_epoch()
 RETURNS bigint
 LANGUAGE plpgsql
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION raise_outbox_position()
 RETURNS bigint
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'public', 'pg_temp'
AS $function$
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
$function$;
GRANT EXECUTE ON FUNCTION raise_outbox_position TO balance_api;

CREATE OR REPLACE FUNCTION refuse_change_of_history()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
    USING ERRCODE = 'restrict_violation',
          HINT = 'Correct an account with a further balance update, never by changing its history.';
END
$function$;

CREATE OR REPLACE FUNCTION sweep_due_holds(p_holds_max integer)
 RETURNS integer
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
 SET jit TO 'off'
AS $function$
DECLARE
  v_looks_max CONSTANT integer := 10;
  v_busy_ids text[] := '{}'; -- accounts locked by another session, perhaps for long: left out of the next look
  v_account_ids text[];
  v_locked_ids text[];
  v_found integer;
  v_expired integer := 0;
BEGIN
  FOR v_look IN 1..v_looks_max LOOP
    SELECT array_agg(DISTINCT due.account_id), count(*) INTO v_account_ids, v_found
    FROM (
      SELECT hold.account_id FROM hold
      -- The clock is read in a subselect: a volatile function cannot be an index condition, and
      -- every active hold would be read.
      WHERE hold.remaining > 0 AND hold.expires_at <= (SELECT clock_timestamp()) AND hold.account_id <> ALL (v_busy_ids)
      ORDER BY hold.expires_at LIMIT p_holds_max
    ) due;
    EXIT WHEN v_found = 0;
    -- A separate statement: expire_due_holds sees what the previous holder of a lock committed.
    SELECT array_agg(locked.account_id) INTO v_locked_ids
    FROM (
      SELECT account.account_id FROM account WHERE account.account_id = ANY (v_account_ids)
      ORDER BY account.account_id FOR NO KEY UPDATE SKIP LOCKED
    ) locked;
    IF v_locked_ids IS NOT NULL THEN
      v_expired := v_expired + (
        SELECT done.expired
        FROM expire_due_holds(v_locked_ids, date_trunc('milliseconds', clock_timestamp()), p_holds_max - v_expired) AS done
      );
    END IF;
    EXIT WHEN v_expired >= p_holds_max OR v_found < p_holds_max;
    v_busy_ids := v_busy_ids || ARRAY(SELECT unnest(v_account_ids) EXCEPT SELECT unnest(v_locked_ids));
  END LOOP;
  RETURN v_expired;
END
$function$;
GRANT EXECUTE ON FUNCTION sweep_due_holds TO balance_api;

CREATE OR REPLACE FUNCTION switch_outbox_partition()
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'public', 'pg_temp'
AS $function$
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
$function$;
GRANT EXECUTE ON FUNCTION switch_outbox_partition TO balance_api;

CREATE OR REPLACE FUNCTION truncate_outbox_partition(p_partition text, p_first bigint, p_last bigint)
 RETURNS boolean
 LANGUAGE plpgsql
 SET lock_timeout TO '40ms'
AS $function$
DECLARE
  v_parity CONSTANT bigint := CASE p_partition WHEN 'outbox_even' THEN 0 WHEN 'outbox_odd' THEN 1 END;
  v_is_as_seen boolean;
BEGIN
  EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', p_partition);
  EXECUTE format('SELECT min(position) = $1 AND max(position) = $2 FROM %I', p_partition) INTO v_is_as_seen USING p_first, p_last;
  IF v_is_as_seen IS NOT TRUE OR (SELECT (last_value >> 26) & 1 = v_parity FROM outbox_position) THEN RETURN false; END IF;
  EXECUTE format('TRUNCATE %I', p_partition);
  RETURN true;
END
$function$;
GRANT EXECUTE ON FUNCTION truncate_outbox_partition TO balance_api;

CREATE OR REPLACE FUNCTION truncate_relay_progress()
 RETURNS void
 LANGUAGE plpgsql
 SET lock_timeout TO '40ms'
AS $function$
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
$function$;
GRANT EXECUTE ON FUNCTION truncate_relay_progress TO balance_api;
