-- The answers to idempotency keys. Written together with the change, under the lock of its account.
--
-- Keys expire by age without a DELETE: they are written to one of two partitions. When that has
-- been in use for as long as keys are kept, the other, older one is truncated and used from then
-- on. So a key is kept for at least that time, and at most twice that. Always read both.
CREATE TABLE idempotency_key (
  account_id text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  client text COLLATE "C" NOT NULL,
  fingerprint bytea NOT NULL,
  outcome text NOT NULL,
  amount bigint,
  balance bigint NOT NULL,
  version bigint NOT NULL,
  epoch bigint NOT NULL,
  other_legs bigint[],
  hold_state text,
  created_at timestamptz(3) NOT NULL,
  partition smallint NOT NULL
) PARTITION BY LIST (partition);

-- Each partition has its own key: the account's lock prevents writing one key to both.
CREATE TABLE idempotency_key_even PARTITION OF idempotency_key (
  CONSTRAINT idempotency_key_even_pk PRIMARY KEY (account_id, key, client)
) FOR VALUES IN (0) WITH (autovacuum_enabled = false);
CREATE TABLE idempotency_key_odd PARTITION OF idempotency_key (
  CONSTRAINT idempotency_key_odd_pk PRIMARY KEY (account_id, key, client)
) FOR VALUES IN (1) WITH (autovacuum_enabled = false);
-- autovacuum: no row is ever deleted, and truncation resets them.

COMMENT ON TABLE idempotency_key IS 'The first answer to a key, by account and client. fingerprint: of operation and body, made by the API.';
COMMENT ON COLUMN idempotency_key.client IS 'The actor of the API key; empty if authentication is off.';
COMMENT ON COLUMN idempotency_key.amount IS 'The amount that was taken, if the request did not state it.';
COMMENT ON COLUMN idempotency_key.other_legs IS 'Balance, version, epoch and milliseconds since 1970 of each further leg; of a refusal that a further leg caused, its number.';
COMMENT ON COLUMN idempotency_key.hold_state IS 'The hold after it, as the answer had it.';

-- One row: the partition that is written to, and since when.
CREATE TABLE idempotency_rotation (
  only_row boolean CONSTRAINT idempotency_rotation_pk PRIMARY KEY DEFAULT true CONSTRAINT idempotency_rotation_one_row CHECK (only_row),
  partition smallint NOT NULL CONSTRAINT idempotency_rotation_partition_known CHECK (partition IN (0, 1)),
  since timestamptz NOT NULL
);
INSERT INTO idempotency_rotation (partition, since) VALUES (0, clock_timestamp());
