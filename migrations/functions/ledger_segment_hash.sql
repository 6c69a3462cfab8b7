-- The hash of a segment of an account's entries: SHA-256 over the previous hash and a JSON array of
-- the account and its entries, each an array. docs/ledger-chain.md describes it for clients.
--
--   hash_before   of the segment before; 32 zero bytes before the first one
--   entries       the texts of the entries (ledger_entry_text) in order of version, with '],[' between them
CREATE OR REPLACE FUNCTION ledger_segment_hash(hash_before bytea, account_id text, entries text) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT sha256(hash_before || convert_to(concat('[', to_json(account_id), ',[', entries, ']]'), 'UTF8'))
$$;
