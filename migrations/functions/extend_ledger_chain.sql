-- Continues the hash chains of accounts, each up to its first gap: events can arrive out of order.
--
--   in   p_account_ids   each once
--        p_entries_max   entries that this call hashes at most
--   out  hashed          entries that are now in a segment
--        unfinished      accounts with more to do
--
-- Writes one row of ledger_chain for each segment, up to 1,000 entries of one account: hashing many
-- entries at once costs a fraction of hashing each by itself.
CREATE OR REPLACE FUNCTION extend_ledger_chain(
  p_account_ids text[], p_entries_max integer, OUT hashed integer, OUT unfinished text[]
) LANGUAGE plpgsql VOLATILE
-- One permanent plan, and an indexed one: the first call in a new database finds empty tables
-- without statistics.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
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
$$;
