-- The keys that may call the API. `npm run keys` is the only writer, except for last_used_at; the
-- API reads it every other second.
--
-- The token itself is never stored, only its SHA-256: it has 256 random bits, so a slow hash would
-- add no protection and cost every request.

CREATE TABLE api_key (
  key_id text COLLATE "C" CONSTRAINT api_key_pk PRIMARY KEY,
  actor text COLLATE "C" NOT NULL,
  scopes text[] NOT NULL,
  account_prefix text COLLATE "C",
  rate_limit integer,
  token_sha256 bytea NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  expires_at timestamptz(3),
  last_used_at timestamptz(3),
  revoked_at timestamptz(3),
  CONSTRAINT api_key_id_form CHECK (key_id ~ '^[0-9A-Za-z]{12}$'),
  CONSTRAINT api_key_actor_form CHECK (actor ~ '^[A-Za-z0-9._:-]{1,64}$'),
  CONSTRAINT api_key_scopes_known CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['read', 'write', 'admin']),
  CONSTRAINT api_key_account_prefix_form CHECK (account_prefix ~ '^[A-Za-z0-9._:-]{0,63}[:._-]$'),
  CONSTRAINT api_key_rate_limit_positive CHECK (rate_limit > 0),
  CONSTRAINT api_key_token_is_hashed CHECK (octet_length(token_sha256) = 32)
);

COMMENT ON TABLE api_key IS 'API keys. actor is the client that holds it: its name is in the ledger. Revoked keys stay, so that a key id in an old log can be looked up.';
COMMENT ON COLUMN api_key.key_id IS 'The public part of the token, by which it is found.';
COMMENT ON COLUMN api_key.account_prefix IS 'The key covers accounts whose id begins with it; null: all.';
COMMENT ON COLUMN api_key.expires_at IS 'It is refused from then on; null: never.';
COMMENT ON COLUMN api_key.last_used_at IS 'To about a minute; null: never used.';
COMMENT ON COLUMN api_key.rate_limit IS 'Updates, or other requests, in a window; null: the setting RATE_LIMIT.';

-- Keeps the API's reading small however many keys were revoked or have expired.
CREATE INDEX api_key_active ON api_key ((coalesce(expires_at, 'infinity'))) WHERE revoked_at IS NULL;
