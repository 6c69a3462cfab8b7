-- The evaluator: the one way in which money moves. Atomic for the whole batch and sequential in its outcome, as if each item
-- had been decided alone, in the order of the arrays. An expected refusal is an outcome, never an exception: one item must
-- not fail its neighbours.
--
--   in   p_accounts        the accounts of the batch, each once, in byte order
--        p_item_accounts   of each item: its account, as an index into p_accounts from 1
--        p_amounts         of each item: minor units, not 0
--        p_references, p_actors, p_traceparents   of each item, or null where none has one
--        p_keys, p_fingerprints   of each item: its idempotency key (or null) and the hash of its request; null: no item has one
--        p_same            of each item: the first item with the same account, actor and key; null: all differ
--   out  of each item, in order:
--        outcomes   null: applied. Else insufficient_funds | balance_out_of_range | max_balance_exceeded   remembered under its key
--                   | account_not_found | account_closed | account_frozen | idempotency_key_reused         not remembered
--        replayed   true: this is the first answer to its key, given again
--        balances, versions, epochs, times   what it left, or found where it was declined; null where nothing is remembered
--      An array is null where it says nothing: all applied, none replayed, and every epoch or time is that of the batch.
--
-- How: one ordered statement locks the accounts and reads them into arrays, one loop decides item after item on the arrays,
-- and each table is then written once. Indices come from the caller, because searching an array is quadratic. What depends
-- on other transactions is read after the locks, in statements of their own: the snapshot of the one that waits for them is
-- older than what it waited for.
CREATE OR REPLACE FUNCTION apply_changes(
  p_accounts text[], p_item_accounts integer[], p_amounts bigint[],
  p_references text[], p_actors text[], p_traceparents text[],
  p_keys text[], p_fingerprints bytea[], p_same integer[],
  OUT outcomes text[], OUT replayed boolean[], OUT balances bigint[], OUT versions bigint[],
  OUT epochs bigint[], OUT times timestamptz[], OUT batch_epoch bigint, OUT batch_time timestamptz
) LANGUAGE plpgsql VOLATILE
-- One plan for good, and an indexed one: the first batches of a new database meet empty tables without statistics. (A custom
-- plan holds the arrays flat: an element of one costs 1.35 µs instead of 0.25.)
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
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
$$;
