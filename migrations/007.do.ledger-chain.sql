-- Tamper evidence: a hash for each ledger entry, over the entry and the hash of the one before, so that no entry can be
-- altered, removed or put in between unless all later hashes of its account are changed too. docs/ledger-chain.md tells
-- clients what is hashed; the worker writes the hashes in the background, beginning with a ledger that was there before.

CREATE TABLE ledger_chain (
  account_id text COLLATE "C" NOT NULL,
  version bigint NOT NULL,
  hash bytea NOT NULL,
  CONSTRAINT ledger_chain_pk PRIMARY KEY (account_id, version),
  CONSTRAINT ledger_chain_version_positive CHECK (version > 0),
  CONSTRAINT ledger_chain_hash_is_sha256 CHECK (octet_length(hash) = 32)
);

COMMENT ON TABLE ledger_chain IS 'Append-only: the hash of each ledger entry, for the versions 1 to n of an account without a gap. hash = sha256(hash of version - 1 || ledger_entry_bytes); 32 zero bytes stand before version 1.';

CREATE TRIGGER ledger_chain_rows_are_final BEFORE UPDATE OR DELETE ON ledger_chain
  FOR EACH ROW EXECUTE FUNCTION refuse_ledger_change();
CREATE TRIGGER ledger_chain_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_chain
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change();
ALTER TABLE ledger_chain ENABLE ALWAYS TRIGGER ledger_chain_rows_are_final;
ALTER TABLE ledger_chain ENABLE ALWAYS TRIGGER ledger_chain_is_append_only;

-- What is hashed of an entry: canonical JSON (RFC 8785) of what was accepted, as the API shows it; what is null is left
-- out. Two entries that differ have different bytes, also where somebody put in what the service never writes: a time
-- outside the years 1 to 9999 or finer than a millisecond stands there as seconds since 1970.
CREATE FUNCTION ledger_entry_bytes(entry ledger) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT convert_to(
    '{"accountId":' || to_json(entry.account_id)::text
    || coalesce(',"actor":' || to_json(entry.actor)::text, '')
    || ',"amount":' || entry.amount::text
    || ',"balance":' || entry.balance::text
    || ',"createdAt":"' || CASE
         WHEN entry.created_at >= '0001-01-01 00:00:00Z' AND entry.created_at < '10000-01-01 00:00:00Z'
              AND entry.created_at = entry.created_at::timestamptz(3)
         THEN to_char(entry.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
         ELSE extract(epoch FROM entry.created_at)::text
       END
    || '"' || coalesce(',"reference":' || to_json(entry.reference)::text, '')
    || ',"version":' || entry.version::text || '}',
    'UTF8'
  )
$$;

CREATE FUNCTION chain_step(hash bytea, entry bytea, hash_before bytea) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
  RETURN sha256(coalesce(hash, hash_before) || entry);
END
$$;

-- Over the entries of an account in order of version: the hash of each. hash_before is that of the version before the first.
CREATE AGGREGATE running_hash(entry bytea, hash_before bytea) (SFUNC = chain_step, STYPE = bytea);

-- Continues the chains of the given accounts (each given once) by p_entries_max entries at most, each up to its first gap:
-- events can arrive out of order. Returns how many hashes it wrote, and the accounts that it left with more to do.
CREATE FUNCTION extend_ledger_chain(p_account_ids text[], p_entries_max integer, OUT written integer, OUT unfinished text[])
LANGUAGE plpgsql VOLATILE
-- One plan for good, and an indexed one: the first call of a new database meets empty tables without statistics.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
DECLARE
  entries_read integer;
BEGIN
  -- One at a time, so that two workers do not hash the same entries twice; in a statement of its own, so that the next one
  -- sees the hashes of the one before. The key is any number, the same for every worker.
  PERFORM pg_advisory_xact_lock(7252310003);

  WITH waiting AS MATERIALIZED (
    SELECT entry.*, head.version AS head_version, head.hash AS head_hash
    FROM unnest(p_account_ids) AS wanted (account_id)
    LEFT JOIN LATERAL (
      SELECT version, hash FROM ledger_chain
      WHERE ledger_chain.account_id = wanted.account_id COLLATE "C" ORDER BY version DESC LIMIT 1
    ) head ON true
    CROSS JOIN LATERAL (
      SELECT account_id, version, ledger_entry_bytes(ledger) AS bytes FROM ledger
      WHERE ledger.account_id = wanted.account_id COLLATE "C" AND version > coalesce(head.version, 0)
        -- What lies behind a gap is not even read: it may be much, and the next call would read it again.
        AND EXISTS (
          SELECT FROM ledger next
          WHERE next.account_id = wanted.account_id COLLATE "C" AND next.version = coalesce(head.version, 0) + 1
        )
      ORDER BY version
      LIMIT p_entries_max
    ) entry
    LIMIT p_entries_max
  ),
  placed AS (
    SELECT *, row_number() OVER (PARTITION BY account_id ORDER BY version) AS place FROM waiting
  ),
  written AS (
    INSERT INTO ledger_chain (account_id, version, hash)
    SELECT account_id, version, running_hash(bytes, coalesce(head_hash, decode(repeat('00', 32), 'hex'))) OVER (PARTITION BY account_id ORDER BY version)
    FROM placed
    WHERE version = coalesce(head_version, 0) + place
    RETURNING 1
  )
  SELECT (SELECT count(*) FROM waiting), (SELECT count(*) FROM written) INTO entries_read, written;

  unfinished := '{}';
  IF entries_read = p_entries_max THEN
    SELECT coalesce(array_agg(wanted.account_id), '{}') INTO unfinished
    FROM unnest(p_account_ids) AS wanted (account_id)
    WHERE EXISTS (
      SELECT FROM ledger
      WHERE ledger.account_id = wanted.account_id COLLATE "C"
        AND version = 1 + coalesce((
          SELECT version FROM ledger_chain
          WHERE ledger_chain.account_id = wanted.account_id COLLATE "C" ORDER BY version DESC LIMIT 1
        ), 0)
    );
  END IF;
END
$$;

REVOKE ALL ON FUNCTION ledger_entry_bytes, chain_step, running_hash, extend_ledger_chain FROM PUBLIC;
GRANT SELECT, INSERT ON ledger_chain TO balance_worker;
GRANT EXECUTE ON FUNCTION ledger_entry_bytes, chain_step, running_hash, extend_ledger_chain TO balance_worker;
GRANT SELECT ON ledger_chain TO balance_api, balance_auditor;
GRANT EXECUTE ON FUNCTION ledger_entry_bytes TO balance_auditor;
