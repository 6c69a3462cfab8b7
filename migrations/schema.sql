-- The schema as PostgreSQL has it after migrate: a picture to read and to compare, not a script. `npm run schema` writes it from
-- a database that was just migrated, and test/integration/schema.test.ts compares it with the real one. Tables come in the
-- order in which they are made; a comment beside a column is its COMMENT. Owners and the name of the schema are left out.

-- The schema ------------------------------------------------------------------------------------------

GRANT USAGE ON SCHEMA public TO balance_api;
GRANT USAGE ON SCHEMA public TO balance_auditor;
GRANT USAGE ON SCHEMA public TO balance_worker;

-- Domains ---------------------------------------------------------------------------------------------

CREATE DOMAIN account_id AS text COLLATE "C"
  CONSTRAINT account_id_form CHECK (VALUE ~ '^(?![.]{1,2}$)[A-Za-z0-9._:-]{1,64}$'::text);

CREATE DOMAIN asset_code AS text COLLATE "C"
  CONSTRAINT asset_code_form CHECK (VALUE ~ '^[A-Z0-9/._-]{1,20}$'::text);

CREATE DOMAIN hold_id AS text COLLATE "C"
  CONSTRAINT hold_id_form CHECK (VALUE ~ '^(?![.]{1,2}$)[A-Za-z0-9._:-]{1,64}$'::text);

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
  account_id account_id NOT NULL,
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
GRANT INSERT, SELECT, UPDATE (amount, captured, remaining, status, expires_at, updated_at) ON hold TO balance_api;
GRANT SELECT ON hold TO balance_auditor;

-- The sum of the reversals of a change, or of a transfer by its lowest debited leg; amounts without a sign.
CREATE TABLE reversal (
  account_id account_id NOT NULL,
  version bigint NOT NULL,
  epoch bigint NOT NULL,
  original bigint NOT NULL,
  reversed bigint NOT NULL,
  CONSTRAINT reversal_pk PRIMARY KEY (account_id, version, epoch),
  CONSTRAINT reversal_within_original CHECK (reversed >= 1 AND reversed <= original)
) WITH (fillfactor=80);
GRANT INSERT, SELECT, UPDATE (reversed) ON reversal TO balance_api;
GRANT SELECT ON reversal TO balance_auditor;

-- Append-only. epoch is the later of the clock in milliseconds since 1970 and the last epoch + 1. Written by current_epoch()
-- and by highload-balance restored.
CREATE TABLE epoch (
  epoch bigint NOT NULL,
  timeline text NOT NULL,
  server_started_at timestamp with time zone NOT NULL,
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

-- Accepted changes, until their event is both confirmed by RabbitMQ and recorded in the ledger, and a little longer. The
-- columns are those of ledger.
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
) PARTITION BY LIST (((("position" >> 18) & (1)::bigint)));
GRANT INSERT, SELECT ON outbox TO balance_api;
GRANT SELECT ON outbox TO balance_auditor;
GRANT SELECT ON outbox TO balance_worker;

CREATE TABLE outbox_even PARTITION OF outbox (
  CONSTRAINT outbox_even_pk PRIMARY KEY (account_id, version),
  CONSTRAINT outbox_even_position_unique UNIQUE ("position")
) FOR VALUES IN ('0') WITH (autovacuum_enabled=false);
GRANT SELECT, TRUNCATE ON outbox_even TO balance_api;

CREATE TABLE outbox_odd PARTITION OF outbox (
  CONSTRAINT outbox_odd_pk PRIMARY KEY (account_id, version),
  CONSTRAINT outbox_odd_position_unique UNIQUE ("position")
) FOR VALUES IN ('1') WITH (autovacuum_enabled=false);
GRANT SELECT, TRUNCATE ON outbox_odd TO balance_api;

-- ledger: published to the ledger queue, confirmed and recorded. subscribers: confirmed by every queue that subscribers bound,
-- or passed over and noted in missed.
CREATE TABLE relay_progress (
  track text COLLATE "C" NOT NULL,
  position bigint NOT NULL,
  CONSTRAINT relay_progress_pk PRIMARY KEY (track, "position"),
  CONSTRAINT relay_progress_track_known CHECK (track = ANY (ARRAY['ledger'::text, 'subscribers'::text]))
) WITH (autovacuum_enabled=false);
GRANT DELETE, INSERT, SELECT, TRUNCATE ON relay_progress TO balance_api;
GRANT SELECT ON relay_progress TO balance_auditor;

-- Positions of the outbox, and when the changes there were created, for replay. queue null: every subscriber; the last ones
-- null: until the queue is bound again.
CREATE TABLE missed (
  missed_id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
  queue text,
  first_position bigint NOT NULL,
  last_position bigint,
  first_created_at timestamp(3) with time zone NOT NULL,
  last_created_at timestamp(3) with time zone,
  noted_at timestamp(3) with time zone NOT NULL DEFAULT clock_timestamp(),
  delivered_at timestamp(3) with time zone,
  CONSTRAINT missed_pk PRIMARY KEY (missed_id),
  CONSTRAINT missed_in_order CHECK (last_position >= first_position)
);
GRANT INSERT, SELECT, UPDATE (last_position, last_created_at, delivered_at) ON missed TO balance_api;
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
);
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
);
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
  client text COLLATE "C" NOT NULL, -- The actor of the API key; empty where the API asks for none.
  fingerprint bytea NOT NULL,
  outcome text NOT NULL,
  amount bigint, -- What was taken, where the request did not say it.
  balance bigint NOT NULL,
  version bigint NOT NULL,
  epoch bigint NOT NULL,
  other_legs bigint[], -- Of a transfer: balance, version and epoch of each further leg, in the order of its accounts.
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
  account_prefix text COLLATE "C", -- The key governs accounts whose id begins with it; null: all.
  rate_limit integer, -- Updates, or other requests, in a window; null is what the setting RATE_LIMIT says.
  token_sha256 bytea NOT NULL,
  created_at timestamp(3) with time zone NOT NULL DEFAULT clock_timestamp(),
  expires_at timestamp(3) with time zone,
  last_used_at timestamp(3) with time zone,
  revoked_at timestamp(3) with time zone,
  CONSTRAINT api_key_pk PRIMARY KEY (key_id),
  CONSTRAINT api_key_id_form CHECK (key_id ~ '^[0-9A-Za-z]{12}$'::text),
  CONSTRAINT api_key_actor_form CHECK (actor ~ '^[A-Za-z0-9._:-]{1,64}$'::text),
  CONSTRAINT api_key_scopes_known CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['read'::text, 'write'::text, 'admin'::text]),
  CONSTRAINT api_key_account_prefix_form CHECK (account_prefix ~ '^[A-Za-z0-9._:-]{0,63}[:._-]$'::text),
  CONSTRAINT api_key_rate_limit_positive CHECK (rate_limit > 0),
  CONSTRAINT api_key_token_is_hashed CHECK (octet_length(token_sha256) = 32)
);
CREATE INDEX api_key_active ON api_key USING btree (created_at, key_id) WHERE revoked_at IS NULL;
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

CREATE OR REPLACE FUNCTION apply_changes(p_accounts text[], p_item_accounts integer[], p_amounts bigint[], p_references text[], p_actors text[], p_traceparents text[], p_keys text[], p_fingerprints bytea[], p_same integer[], OUT outcomes text[], OUT replayed boolean[], OUT balances bigint[], OUT versions bigint[], OUT epochs bigint[], OUT times timestamp with time zone[], OUT batch_epoch bigint, OUT batch_time timestamp with time zone)
 RETURNS record
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
 SET jit TO 'off'
AS $function$
DECLARE
  v_items CONSTANT integer := cardinality(p_item_accounts);
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
  v_places integer[]; -- of each account that was sent: where it is among those that were locked
  v_statuses text[];
  v_are_open boolean;
  v_is_troubled boolean := false;
  v_oldest_epoch bigint;
  v_newest_epoch bigint;
  v_is_even boolean; -- one epoch and one time for all accounts
  -- Of each item.
  v_known integer[]; -- its place in the v_known_ arrays, where its key was answered before
  v_known_items integer[];
  v_known_same boolean[];
  v_known_outcomes text[];
  v_known_balances bigint[];
  v_known_versions bigint[];
  v_known_epochs bigint[];
  v_known_times timestamptz[];
  v_is_settled boolean := false; -- some item may get an answer that was given before
  v_is_applied boolean[]; -- null: all are
  v_is_changed boolean := false;
  a integer;
  k integer;
  v_twin integer;
  v_balance bigint;
  v_verdict text;
  v_is_lone boolean := cardinality(p_item_accounts) = 1;
  v_lone record;
  v_found idempotency_key%ROWTYPE;
BEGIN
  -- Above READ COMMITTED the look-ups below would use a snapshot older than the lock, and one key could apply twice.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'apply_changes needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'feature_not_supported';
  END IF;

  -- A lone item, which is the usual batch: a few statements instead of all below, which cost twice as much. What is unusual
  -- in any way matches nothing here and is decided below.
  IF v_is_lone AND p_keys[1] IS NOT NULL THEN
    PERFORM FROM account WHERE account.account_id = p_accounts[1] FOR NO KEY UPDATE;
    v_is_lone := FOUND; -- an account that appears only now was not locked: the path below locks it, then looks up the key
    SELECT found.* INTO v_found FROM idempotency_key found
    WHERE found.account_id = p_accounts[1] AND found.key = p_keys[1] AND found.client = coalesce(p_actors[1], '') LIMIT 1;
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
  IF v_is_lone THEN
    UPDATE account
    SET balance = account.balance + p_amounts[1], version = account.version + 1,
        updated_at = greatest(date_trunc('milliseconds', clock_timestamp()), account.updated_at)
    WHERE account.account_id = p_accounts[1] AND account.status = 'open' AND account.held = 0
      AND account.epoch = (
        SELECT CASE WHEN newest.timeline = substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)
                     AND newest.server_started_at = pg_postmaster_start_time() THEN newest.epoch END
        FROM epoch newest ORDER BY newest.epoch DESC LIMIT 1
      )
      AND money_verdict(p_amounts[1], account.balance, -account.overdraft_limit, coalesce(account.max_balance, 9007199254740991)) IS NULL
    RETURNING account.balance, account.version, account.epoch, account.asset, account.updated_at, NULL::text AS verdict INTO v_lone;
    IF FOUND THEN
      INSERT INTO outbox (
        account_id, version, epoch, previous_epoch, amount, balance, created_at, type, asset, reference, actor, traceparent
      ) VALUES (
        p_accounts[1], v_lone.version, v_lone.epoch, v_lone.epoch, p_amounts[1], v_lone.balance, v_lone.updated_at,
        CASE WHEN p_amounts[1] > 0 THEN 'balance.credited' ELSE 'balance.debited' END, v_lone.asset,
        p_references[1], p_actors[1], p_traceparents[1]
      );
    ELSE
      SELECT * INTO v_lone
      FROM (
        SELECT account.balance, account.version, account.epoch, account.asset,
               greatest(date_trunc('milliseconds', clock_timestamp()), account.updated_at) AS updated_at,
               money_verdict(p_amounts[1], account.balance, -account.overdraft_limit, coalesce(account.max_balance, 9007199254740991)) AS verdict
        FROM account
        WHERE account.account_id = p_accounts[1] AND account.status = 'open' AND account.held = 0
      ) declined
      WHERE declined.verdict IS NOT NULL;
    END IF;
    IF FOUND THEN
      IF p_keys[1] IS NOT NULL THEN
        INSERT INTO idempotency_key (
          account_id, key, client, fingerprint, outcome, balance, version, epoch, created_at, partition
        ) VALUES (
          p_accounts[1], p_keys[1], coalesce(p_actors[1], ''), p_fingerprints[1], coalesce(v_lone.verdict, 'applied'),
          v_lone.balance, v_lone.version, v_lone.epoch, v_lone.updated_at,
          (SELECT rotation.partition FROM idempotency_rotation rotation WHERE rotation.only_row)
        );
      END IF;
      IF v_lone.verdict IS NOT NULL THEN outcomes := ARRAY[v_lone.verdict]; END IF;
      balances := ARRAY[v_lone.balance];
      versions := ARRAY[v_lone.version];
      batch_epoch := v_lone.epoch;
      batch_time := v_lone.updated_at;
      RETURN;
    END IF;
  END IF;

  -- 1. The locks, in one order, so that batches over the same accounts queue instead of deadlocking.
  SELECT array_agg(l.account_id), array_agg(l.balance), array_agg(l.held), array_agg(l.version), array_agg(l.held - l.overdraft_limit),
         array_agg(coalesce(l.max_balance, 9007199254740991)), array_agg(l.asset), array_agg(l.epoch), array_agg(l.updated_at),
         bool_and(l.status = 'open'), max(l.updated_at), min(l.epoch), max(l.epoch)
    INTO v_ids, v_balances, v_held, v_versions, v_floors, v_ceilings, v_assets, v_old_epochs, v_times,
         v_are_open, v_latest, v_oldest_epoch, v_newest_epoch
  FROM (
    SELECT account.* FROM account WHERE account.account_id = ANY (p_accounts) ORDER BY account.account_id FOR NO KEY UPDATE
  ) l;

  -- 2. Time and epoch. Neither runs backwards within an account, whatever the clock of the machine does.
  v_now := date_trunc('milliseconds', clock_timestamp());
  batch_time := v_now;
  SELECT newest.epoch INTO batch_epoch
  FROM (SELECT * FROM epoch ORDER BY epoch.epoch DESC LIMIT 1) newest
  WHERE newest.timeline = substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)
    AND newest.server_started_at = pg_postmaster_start_time();
  IF NOT FOUND THEN batch_epoch := current_epoch(); END IF;
  v_is_even := v_latest <= v_now AND v_oldest_epoch = batch_epoch AND v_newest_epoch = batch_epoch;
  v_old_versions := v_versions;

  -- 3. Accounts that are missing or barred, or that came in another order than they were sent. An account that was created
  -- while this waited was not locked, so it is not there: compared with what was locked, never read again.
  IF v_ids IS DISTINCT FROM p_accounts OR NOT v_are_open THEN
    v_is_troubled := true;
    SELECT array_agg(locked.status ORDER BY locked.account_id) INTO v_statuses
    FROM account locked WHERE locked.account_id = ANY (v_ids);
    -- A walk through both, which are in one order: a join of arrays would compare each with each.
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

  -- 4. Keys that were answered before.
  IF p_keys IS NOT NULL THEN
    SELECT array_agg(sent.item), array_agg(known.fingerprint = sent.fingerprint), array_agg(known.outcome), array_agg(known.balance),
           array_agg(known.version), array_agg(known.epoch), array_agg(known.created_at)
      INTO v_known_items, v_known_same, v_known_outcomes, v_known_balances, v_known_versions, v_known_epochs, v_known_times
    FROM (
      SELECT u.key, u.fingerprint, coalesce(u.actor, '') AS client, p_accounts[u.account] AS account_id, u.item::integer AS item
      FROM unnest(p_keys, p_fingerprints, p_actors, p_item_accounts) WITH ORDINALITY AS u (key, fingerprint, actor, account, item)
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
    ELSIF p_same IS NOT NULL THEN
      v_is_settled := true;
    END IF;
  END IF;

  -- 5. One item after the other. Every array is filled first: an element put into a null array at 3 makes one that starts at 3.
  balances := array_fill(NULL::bigint, ARRAY[v_items]);
  versions := balances;
  IF v_is_settled THEN
    outcomes := array_fill(NULL::text, ARRAY[v_items]);
    replayed := array_fill(false, ARRAY[v_items]);
    v_is_applied := array_fill(true, ARRAY[v_items]);
    v_is_even := false;
  END IF;
  IF NOT v_is_even THEN
    epochs := array_fill(batch_epoch, ARRAY[v_items]);
    times := array_fill(v_now, ARRAY[v_items]);
  END IF;
  FOR i IN 1..v_items LOOP
    a := p_item_accounts[i];
    IF v_is_settled THEN
      k := v_known[i];
      IF k IS NOT NULL THEN
        v_is_applied[i] := false;
        IF v_known_same[k] THEN
          outcomes[i] := nullif(v_known_outcomes[k], 'applied');
          replayed[i] := true;
          balances[i] := v_known_balances[k];
          versions[i] := v_known_versions[k];
          epochs[i] := v_known_epochs[k];
          times[i] := v_known_times[k];
        ELSE
          outcomes[i] := 'idempotency_key_reused';
        END IF;
        CONTINUE;
      END IF;
      v_twin := p_same[i];
      IF v_twin < i AND (outcomes[v_twin] IS NULL OR outcomes[v_twin] NOT IN ('account_not_found', 'account_closed', 'account_frozen')) THEN
        v_is_applied[i] := false;
        IF p_fingerprints[v_twin] = p_fingerprints[i] THEN
          outcomes[i] := outcomes[v_twin];
          replayed[i] := true;
          balances[i] := balances[v_twin];
          versions[i] := versions[v_twin];
          epochs[i] := epochs[v_twin];
          times[i] := times[v_twin];
        ELSE
          outcomes[i] := 'idempotency_key_reused';
        END IF;
        CONTINUE;
      END IF;
    END IF;

    v_balance := v_balances[a];
    v_verdict := money_verdict(p_amounts[i], v_balance, v_floors[a], v_ceilings[a]);
    IF v_is_troubled AND v_refusals[a] IS NOT NULL THEN v_verdict := v_refusals[a]; END IF;
    IF v_verdict IS NULL THEN
      v_balance := v_balance + p_amounts[i];
      v_balances[a] := v_balance;
      v_versions[a] := v_versions[a] + 1;
      v_is_changed := true;
    ELSE
      IF outcomes IS NULL THEN
        outcomes := array_fill(NULL::text, ARRAY[v_items]);
        v_is_applied := array_fill(true, ARRAY[v_items]);
      END IF;
      outcomes[i] := v_verdict;
      v_is_applied[i] := false;
      CONTINUE WHEN v_is_troubled AND v_refusals[a] IS NOT NULL;
    END IF;
    balances[i] := v_balance;
    versions[i] := v_versions[a];
    IF NOT v_is_even THEN
      epochs[i] := coalesce(v_epochs[a], batch_epoch);
      times[i] := CASE WHEN v_epochs IS NULL THEN v_now ELSE v_times[a] END;
    END IF;
  END LOOP;

  -- 6. What changed, each table once.
  IF v_is_changed THEN
    UPDATE account
    SET balance = after.balance, version = after.version, epoch = coalesce(after.epoch, batch_epoch),
        updated_at = CASE WHEN v_epochs IS NULL THEN v_now ELSE after.at END
    FROM unnest(p_accounts, v_balances, v_versions, v_epochs, v_times) AS after (account_id, balance, version, epoch, at)
    WHERE account.account_id = after.account_id AND account.version <> after.version;

    INSERT INTO outbox (
      account_id, version, epoch, previous_epoch, amount, balance, held, created_at, type, asset, reference, actor, traceparent
    )
    SELECT p_accounts[item.account], item.version, coalesce(item.epoch, batch_epoch),
           CASE WHEN v_epochs IS NULL OR item.version > v_old_versions[item.account] + 1 THEN coalesce(item.epoch, batch_epoch)
                ELSE v_old_epochs[item.account] END,
           item.amount, item.balance, v_held[item.account], coalesce(item.at, v_now),
           CASE WHEN item.amount > 0 THEN 'balance.credited' ELSE 'balance.debited' END,
           v_assets[item.account], item.reference, item.actor, item.traceparent
    FROM unnest(p_item_accounts, p_amounts, balances, versions, epochs, times, v_is_applied, p_references, p_actors, p_traceparents)
      WITH ORDINALITY AS item (account, amount, balance, version, epoch, at, is_applied, reference, actor, traceparent, i)
    WHERE item.is_applied IS NOT FALSE
    ORDER BY item.i;
  END IF;

  IF p_keys IS NOT NULL THEN
    INSERT INTO idempotency_key (account_id, key, client, fingerprint, outcome, balance, version, epoch, created_at, partition)
    SELECT p_accounts[item.account], item.key, coalesce(item.actor, ''), item.fingerprint, coalesce(item.outcome, 'applied'),
           item.balance, item.version, coalesce(item.epoch, batch_epoch), coalesce(item.at, v_now),
           (SELECT rotation.partition FROM idempotency_rotation rotation WHERE rotation.only_row)
    FROM unnest(p_item_accounts, p_keys, p_actors, p_fingerprints, outcomes, replayed, balances, versions, epochs, times)
      AS item (account, key, actor, fingerprint, outcome, replayed, balance, version, epoch, at)
    WHERE item.key IS NOT NULL AND item.replayed IS NOT TRUE
      AND (item.outcome IS NULL
           OR item.outcome NOT IN ('account_not_found', 'account_closed', 'account_frozen', 'idempotency_key_reused'));
  END IF;
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
BEGIN
  -- A statement of its own: what follows sees what the previous holder of the lock committed.
  SELECT locked.* INTO account FROM account locked WHERE locked.account_id = p_account_id FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    outcome := 'account_not_found';
    RETURN;
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
      updated_at = greatest(date_trunc('milliseconds', clock_timestamp()), one.updated_at)
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
  v_timeline CONSTANT text := substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8);
  v_epoch bigint;
BEGIN
  FOR attempt IN 1..2 LOOP
    SELECT newest.epoch INTO v_epoch
    FROM (SELECT * FROM epoch ORDER BY epoch.epoch DESC LIMIT 1) newest
    WHERE newest.timeline = v_timeline AND newest.server_started_at = pg_postmaster_start_time();
    IF FOUND THEN RETURN v_epoch; END IF;
    -- One at a time, and the second look sees what the one before committed. Whoever waits here holds locks on accounts, and
    -- whoever has this lock waits for no other. Any number, the same for everyone.
    IF attempt = 1 THEN PERFORM pg_advisory_xact_lock(7252310004); END IF;
  END LOOP;
  INSERT INTO epoch (epoch, timeline, server_started_at)
  SELECT greatest(coalesce(max(epoch.epoch), 0) + 1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint),
         v_timeline, pg_postmaster_start_time()
  FROM epoch
  RETURNING epoch.epoch INTO v_epoch;
  RETURN v_epoch;
END
$function$;
GRANT EXECUTE ON FUNCTION current_epoch TO balance_api;
GRANT EXECUTE ON FUNCTION current_epoch TO balance_worker;

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
  -- Every batch holds a lock on both partitions from before its snapshot to its end, so none is in flight here, and the
  -- next one sees the change: after it nothing is written to what was written to before.
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
  -- Of each account: its head, and the entries after it that fit into a segment. Their order is that of the subquery: a sort
  -- of the texts would cost a tenth of all this.
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
          -- What comes after a gap is not even read: it may be much, and the next call would read it again.
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
  -- One at a time, so that two workers do not hash the same entries twice; in a statement of its own, so that the next one
  -- sees the hashes of the one before. The key is any number, the same for every worker.
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
      -- Read again by their versions: this statement sees entries that were recorded since the texts were read, and so did the
      -- count above, for which a gap may have been filled meanwhile.
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
        -- As a string: what is in it cannot pass for another member.
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
