-- The API verifies single accounts (GET /v1/accounts/{id}/verification), for which it computes their hashes again.
GRANT EXECUTE ON FUNCTION ledger_entry_bytes TO balance_api;
