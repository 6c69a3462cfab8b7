-- The evaluator: the only way in which money moves. Atomic for the whole batch and sequential in
-- its outcome, as if each item had been decided alone, in the order of the arrays. An expected
-- refusal is an outcome, never an exception: one item must not fail the others.
--
-- An item takes effect as a whole or not at all. It has legs, one for each account that it changes
-- (only the legs of an `atomic` item may name one account several times), and each leg that takes
-- effect is one version of its account.
--
--   in   p_accounts          the accounts of the batch, each once, in byte order
--        of each leg         p_leg_accounts: its account, as an index into p_accounts from 1. p_amounts: minor units, a credit is
--                            positive; null: what is left of the hold. p_references, p_metadata, p_actors, p_traceparents
--        of updates          p_expected_versions: else version_mismatch. p_up_to: a debit takes what is available, at least 1
--        of each item        p_keys, p_fingerprints: its idempotency key (or null) and the hash of its request. p_same: the first
--                            item with the same account, client and key. The client is the actor of the first leg
--      Null for any of these arrays: no item has it, or all keys differ. And null for the following: every item is an update of one leg.
--        of each leg         p_payers: the lowest debited leg, whose id becomes that of the transfer; null: it is not of one
--        of each item        p_first_legs: the index of its first leg, and one element more for the end. p_key_accounts: the
--                            account that its key belongs to. p_kinds:
--                              null       an update
--                              transfer   2 or more legs with the sum 0, by account
--                              atomic     updates, all or none
--                              reversal   p_objects: the change that it reverses. Its legs have the opposite amounts of that
--                              reversal_rest   the same, but as much of it as is left
--                              hold       p_amounts sets aside. p_objects: the hold, which it makes. p_hold_seconds: until it expires
--                              capture, capture_final   the opposite of p_amounts is taken of the hold; the rest stays, or is released.
--                                         A second leg gets it
--                              release    p_amounts of the hold is free again
--                              hold_change   p_amounts: the new total, or null. p_hold_seconds: null: as it was, 0: never
--        of each hold        p_hold_accounts, p_hold_ids: each hold of the batch once
--        of each reversal    p_reversal_accounts, p_reversal_versions, p_reversal_epochs: the change that is reversed, by its lowest
--                            debited leg. p_reversal_originals: how much it was; null: not_reversible. p_reversal_ids: its id
--        of each item        p_forgotten: true: its decline is not remembered under its key, and answered as rate_limited
--
--   out  of each item        outcomes: null: it took effect. replayed: true: this is the first answer to its key, or its hold, again.
--                            failed_legs: of a refusal, where an item has several. hold_states: of hold, capture, release and hold_change,
--                            JSON {amount, captured, remaining, status, expiresAt, createdAt, updatedAt}, times in milliseconds
--        of each leg         balances, versions, epochs, times: what it left, or what was found where it was declined; null where nothing
--                            is remembered. amounts: what was moved
--      An array is null where it says nothing: all took effect, none replayed, every epoch or time that of the batch, amounts as sent.
--      So is an element of epochs and times: that of the batch.
--
--   The outcomes, of which the first that applies decides:
--     idempotency_key_reused, hold_exists, the first answer of a retry, account_not_found, account_closed, account_frozen,
--     asset_mismatch, hold_not_found, hold_closed, hold_expired, not_reversible, already_reversed, version_mismatch*,
--     hold_amount_exceeded*, reversal_exceeds*, balance_out_of_range*, max_balance_exceeded*, insufficient_funds*
--   Those with a star are remembered under the key, as is what took effect; of an item with p_forgotten they are rate_limited instead,
--   and not remembered: it was not decided. overloaded: more holds were due than a batch expires,
--   and without them the funds do not suffice.
--
-- How: one ordered statement locks the accounts and reads them into arrays, one loop decides item
-- after item on the arrays, and each table is then written once. Indices come from the calling
-- code, because searching an array is quadratic. Data that depends on other transactions is read
-- after the locks, in separate statements: the snapshot of the statement that waits for a lock is
-- older than what it waited for. The sessions that call it fix its plans, see
-- src/shared/session-settings.ts.
CREATE OR REPLACE FUNCTION apply_changes(
  p_accounts text[], p_leg_accounts integer[], p_amounts bigint[],
  p_references text[], p_metadata text[], p_actors text[], p_traceparents text[],
  p_expected_versions bigint[], p_up_to boolean[],
  p_keys text[], p_fingerprints bytea[], p_same integer[],
  p_payers integer[], p_kinds text[], p_first_legs integer[], p_key_accounts integer[], p_objects integer[], p_hold_seconds integer[],
  p_hold_accounts integer[], p_hold_ids text[],
  p_reversal_accounts integer[], p_reversal_versions bigint[], p_reversal_epochs bigint[], p_reversal_originals bigint[],
  p_reversal_ids text[], p_forgotten boolean[] DEFAULT NULL,
  OUT outcomes text[], OUT replayed boolean[], OUT failed_legs integer[], OUT hold_states text[],
  OUT balances bigint[], OUT versions bigint[], OUT epochs bigint[], OUT times timestamptz[], OUT amounts bigint[],
  OUT batch_epoch bigint, OUT batch_time timestamptz
) LANGUAGE plpgsql VOLATILE
AS $$
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
$$;
