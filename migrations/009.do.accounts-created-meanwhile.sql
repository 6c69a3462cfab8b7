-- A batch of several updates locks its accounts in one statement and decides in the next. An account that was created in
-- between was found by the second though the first had not locked it, so that a change of it could be answered and
-- published while a concurrent change of the same account won. Such an account is account_not_found now. As in 004 otherwise.
CREATE OR REPLACE FUNCTION apply_balance_updates(
  p_account_ids text[], p_amounts bigint[], p_references text[], p_keys text[], p_traceparents text[], p_actors text[],
  p_now timestamptz
) RETURNS TABLE (item integer, outcome text, replayed boolean, balance bigint, version bigint, created_at timestamptz)
LANGUAGE plpgsql VOLATILE
-- One plan for good, and an indexed one: the first batches of a new database meet empty tables without statistics.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  held account%ROWTYPE;
  held_ids text[];
  known request%ROWTYPE;
BEGIN
  -- Above READ COMMITTED the look-ups below would use a snapshot older than the lock, and one key could apply twice.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'apply_balance_updates needs READ COMMITTED, not %', current_setting('transaction_isolation')
      USING ERRCODE = 'invalid_transaction_state';
  END IF;

  IF cardinality(p_account_ids) = 1 THEN
    item := 1;
    replayed := false;
    SELECT * INTO held FROM account WHERE account_id = p_account_ids[1] FOR NO KEY UPDATE;
    IF p_keys[1] IS NOT NULL THEN
      SELECT * INTO known FROM request WHERE account_id = p_account_ids[1] AND key = p_keys[1] LIMIT 1;
    END IF;
    IF known.key IS NOT NULL THEN
      IF known.amount = p_amounts[1] AND known.reference IS NOT DISTINCT FROM p_references[1] THEN
        outcome := known.outcome;
        replayed := true;
        balance := known.balance;
        version := known.version;
        created_at := known.created_at;
      ELSE
        outcome := 'idempotency_key_reused';
      END IF;
    ELSIF held.account_id IS NULL THEN
      outcome := 'account_not_found';
    ELSIF held.status = 'frozen' THEN
      outcome := 'account_frozen';
    ELSE
      balance := balance_step(NULL, p_amounts[1], held.balance, held.overdraft_limit);
      version := held.version;
      created_at := greatest(p_now, held.updated_at)::timestamptz(3);
      IF balance <> held.balance THEN
        outcome := 'applied';
        version := version + 1;
        UPDATE account SET balance = apply_balance_updates.balance, version = apply_balance_updates.version,
                           updated_at = apply_balance_updates.created_at
        WHERE account_id = held.account_id;
        INSERT INTO outbox (account_id, version, amount, balance, reference, traceparent, actor, created_at)
        VALUES (held.account_id, apply_balance_updates.version, p_amounts[1], apply_balance_updates.balance,
                p_references[1], p_traceparents[1], p_actors[1], apply_balance_updates.created_at);
      ELSIF p_amounts[1] > 0 OR p_amounts[1] < -9007199254740991 - held.balance THEN
        outcome := 'balance_out_of_range';
      ELSE
        outcome := 'insufficient_funds';
      END IF;
      IF p_keys[1] IS NOT NULL THEN
        INSERT INTO request (account_id, key, amount, reference, outcome, balance, version, created_at, partition)
        VALUES (held.account_id, p_keys[1], p_amounts[1], p_references[1], apply_balance_updates.outcome,
                apply_balance_updates.balance, apply_balance_updates.version, apply_balance_updates.created_at,
                (SELECT partition FROM request_rotation WHERE only_row));
      END IF;
    END IF;
    RETURN NEXT;
    RETURN;
  END IF;

  -- Locked in one global order, so that two batches over the same accounts queue instead of deadlocking; and in a
  -- statement of its own, so that everything below sees what the previous holder of the lock committed.
  SELECT array_agg(locked.account_id) INTO held_ids FROM (
    SELECT account_id FROM account WHERE account.account_id = ANY (p_account_ids) ORDER BY account.account_id FOR NO KEY UPDATE
  ) locked;

  RETURN QUERY
  WITH input AS (
    SELECT u.item::integer, u.account_id COLLATE "C" AS account_id, u.amount, u.reference, u.key COLLATE "C" AS key, u.traceparent, u.actor,
           -- The first with a key in this batch decides; the ones behind it are answered like later repeats.
           first_value(u.item::integer) OVER same_key AS first_item,
           first_value(u.amount) OVER same_key AS first_amount,
           first_value(u.reference) OVER same_key AS first_reference
    FROM unnest(p_account_ids, p_amounts, p_references, p_keys, p_traceparents, p_actors)
         WITH ORDINALITY AS u (account_id, amount, reference, key, traceparent, actor, item)
    WINDOW same_key AS (PARTITION BY u.account_id, u.key, CASE WHEN u.key IS NULL THEN u.item END ORDER BY u.item)
  ),
  sorted_out AS MATERIALIZED (
    SELECT input.*,
           account.ctid AS location, account.balance AS opening_balance, account.version AS opening_version, account.overdraft_limit,
           greatest(p_now, account.updated_at)::timestamptz(3) AS applied_at,
           request.outcome AS known_outcome, request.balance AS known_balance,
           request.version AS known_version, request.created_at AS known_created_at,
           CASE
             WHEN request.key IS NOT NULL THEN
               CASE WHEN request.amount = input.amount AND request.reference IS NOT DISTINCT FROM input.reference
                    THEN 'replay' ELSE 'idempotency_key_reused' END
             -- One that was created while the locks were waited for is there now, and nobody holds it.
             WHEN account.account_id IS NULL OR account.account_id NOT IN (SELECT unnest(held_ids) COLLATE "C") THEN 'account_not_found'
             WHEN account.status = 'frozen' THEN 'account_frozen'
             WHEN input.first_item < input.item THEN
               CASE WHEN input.first_amount = input.amount AND input.first_reference IS NOT DISTINCT FROM input.reference
                    THEN 'repeat' ELSE 'idempotency_key_reused' END
             ELSE 'new'
           END AS verdict
    FROM input
    -- LATERAL with LIMIT 1 is a look-up by key whatever the statistics say. A plain join, planned while these tables were
    -- known to be empty, walks the whole index for each row, and that plan stays until the next ANALYZE.
    LEFT JOIN LATERAL (SELECT ctid, * FROM account WHERE account.account_id = input.account_id LIMIT 1) account ON true
    LEFT JOIN LATERAL (
      SELECT * FROM request WHERE request.account_id = input.account_id AND request.key = input.key LIMIT 1
    ) request ON true
  ),
  balances AS (
    SELECT sorted_out.*, running_balance(amount, opening_balance, overdraft_limit) OVER in_order AS balance_after
    FROM sorted_out
    WHERE verdict = 'new'
    WINDOW in_order AS (PARTITION BY account_id ORDER BY item)
  ),
  steps AS (
    SELECT balances.*, lag(balance_after, 1, opening_balance) OVER in_order AS balance_before
    FROM balances
    WINDOW in_order AS (PARTITION BY account_id ORDER BY item)
  ),
  decided AS MATERIALIZED (
    SELECT item, account_id, location, amount, reference, key, traceparent, actor, applied_at, balance_after,
           opening_version + count(*) FILTER (WHERE balance_after <> balance_before) OVER in_order AS version_after,
           CASE
             WHEN balance_after <> balance_before THEN 'applied'
             WHEN amount > 0 OR amount < -9007199254740991 - balance_before THEN 'balance_out_of_range'
             ELSE 'insufficient_funds'
           END AS outcome
    FROM steps
    WINDOW in_order AS (PARTITION BY account_id ORDER BY item)
  ),
  moved AS (
    UPDATE account
    SET balance = latest.balance_after, version = latest.version_after, updated_at = latest.applied_at
    FROM (
      SELECT DISTINCT ON (account_id) location, balance_after, version_after, applied_at
      FROM decided
      WHERE outcome = 'applied'
      ORDER BY account_id, item DESC
    ) latest
    WHERE account.ctid = latest.location -- the row is locked: it does not move
  ),
  queued AS (
    INSERT INTO outbox (account_id, version, amount, balance, reference, traceparent, actor, created_at)
    SELECT account_id, version_after, amount, balance_after, reference, traceparent, actor, applied_at
    FROM decided
    WHERE outcome = 'applied'
    ORDER BY item
  ),
  remembered AS (
    INSERT INTO request (account_id, key, amount, reference, outcome, balance, version, created_at, partition)
    SELECT account_id, key, amount, reference, outcome, balance_after, version_after, applied_at,
           (SELECT partition FROM request_rotation WHERE only_row)
    FROM decided
    WHERE key IS NOT NULL
  )
  SELECT item, outcome, false, balance_after, version_after, applied_at
  FROM decided
  UNION ALL
  SELECT sorted_out.item, decided.outcome, true, balance_after, version_after, decided.applied_at
  FROM sorted_out
  JOIN decided ON decided.item = sorted_out.first_item
  WHERE verdict = 'repeat'
  UNION ALL
  SELECT item, known_outcome, true, known_balance, known_version, known_created_at
  FROM sorted_out
  WHERE verdict = 'replay'
  UNION ALL
  SELECT item, verdict, false, NULL, NULL, NULL
  FROM sorted_out
  WHERE verdict IN ('idempotency_key_reused', 'account_not_found', 'account_frozen');
END
$$;
