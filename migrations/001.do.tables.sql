-- The tables. One writer each: the API writes account, request, outbox and relay_progress, the worker writes ledger.
--
-- Keys start with account_id and no foreign keys connect the tables: a foreign key would make each insert take a
-- share lock on the hot account row, and verify (npm run verify) proves what they would promise, and more.
-- Amounts and balances are whole minor units, at most 2^53 - 1 in size, so that no JSON client ever rounds one.
-- Identifiers use COLLATE "C": byte order is the same on every server, and locks are taken in it.

CREATE TABLE account (
  account_id text COLLATE "C" CONSTRAINT account_pk PRIMARY KEY,
  balance bigint NOT NULL DEFAULT 0,
  version bigint NOT NULL DEFAULT 0,
  overdraft_limit bigint NOT NULL DEFAULT 0,
  status text NOT NULL DEFAULT 'open',
  created_at timestamptz(3) NOT NULL,
  updated_at timestamptz(3) NOT NULL,
  CONSTRAINT account_id_form CHECK (account_id ~ '^(?!\.{1,2}$)[A-Za-z0-9._:-]{1,64}$'),
  CONSTRAINT account_balance_in_range CHECK (balance BETWEEN -9007199254740991 AND 9007199254740991),
  CONSTRAINT account_version_in_range CHECK (version BETWEEN 0 AND 9007199254740991),
  CONSTRAINT account_overdraft_limit_in_range CHECK (overdraft_limit BETWEEN 0 AND 9007199254740991),
  CONSTRAINT account_not_overdrawn CHECK (balance >= -overdraft_limit),
  CONSTRAINT account_status_known CHECK (status IN ('open', 'frozen'))
) WITH (fillfactor = 80);
-- fillfactor: room for heap-only updates, since no indexed column changes after creation.

COMMENT ON TABLE account IS 'The balance of record. version counts accepted changes and rises by exactly 1 with each.';

-- What an idempotency key was answered. Written together with the change it stands for.
CREATE TABLE request (
  account_id text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  amount bigint NOT NULL,
  reference text,
  outcome text NOT NULL,
  balance bigint NOT NULL,
  version bigint NOT NULL,
  created_at timestamptz(3) NOT NULL,
  CONSTRAINT request_pk PRIMARY KEY (account_id, key),
  CONSTRAINT request_key_length CHECK (length(key) BETWEEN 1 AND 255),
  CONSTRAINT request_outcome_known CHECK (outcome IN ('applied', 'insufficient_funds', 'balance_out_of_range'))
);

COMMENT ON TABLE request IS 'Idempotency: the first answer to a key. amount and reference are the fingerprint of the body.';

-- Changes on their way to RabbitMQ and the ledger. position is given under the account's lock, so within one account
-- it rises with version; across accounts it is neither gapless nor in commit order (the relay copes with both).
--
-- Insert-only: deleting row by row would leave dead rows that an old snapshot (a backup, a forgotten transaction) keeps
-- alive, and the queue would slow down. Instead positions alternate between two partitions in blocks, and a partition
-- is truncated when the ledger holds all of it. Read all of outbox always: either partition may hold what is current.
CREATE SEQUENCE outbox_position AS bigint;

CREATE TABLE outbox (
  position bigint NOT NULL DEFAULT nextval('outbox_position'),
  account_id text COLLATE "C" NOT NULL,
  version bigint NOT NULL,
  amount bigint NOT NULL,
  balance bigint NOT NULL,
  reference text,
  traceparent text,
  created_at timestamptz(3) NOT NULL,
  CONSTRAINT outbox_amount_not_zero CHECK (amount <> 0)
) PARTITION BY LIST (((position >> 18) & 1)); -- blocks of 262,144 positions, about 40 MB
ALTER SEQUENCE outbox_position OWNED BY outbox.position;

-- The keys are each partition's own: a key of the whole would have to hold the partitioning expression, which it cannot.
CREATE TABLE outbox_even PARTITION OF outbox (
  CONSTRAINT outbox_even_pk PRIMARY KEY (account_id, version),
  CONSTRAINT outbox_even_position_unique UNIQUE (position)
) FOR VALUES IN (0) WITH (autovacuum_enabled = false);
CREATE TABLE outbox_odd PARTITION OF outbox (
  CONSTRAINT outbox_odd_pk PRIMARY KEY (account_id, version),
  CONSTRAINT outbox_odd_position_unique UNIQUE (position)
) FOR VALUES IN (1) WITH (autovacuum_enabled = false);
-- autovacuum: nothing is ever deleted, and truncation starts them afresh.

COMMENT ON TABLE outbox IS 'Accepted changes, until their event is both confirmed by RabbitMQ and recorded in the ledger, and somewhat longer.';

-- How far the relay has got: everything up to the highest of these positions is confirmed and recorded, so a new relay
-- starts behind it. Insert-only for the same reason, and truncated now and then.
CREATE TABLE relay_progress (
  position bigint CONSTRAINT relay_progress_pk PRIMARY KEY
) WITH (autovacuum_enabled = false);

-- The audit ledger: one entry for each accepted change, for ever.
CREATE TABLE ledger (
  account_id text COLLATE "C" NOT NULL,
  version bigint NOT NULL,
  amount bigint NOT NULL,
  balance bigint NOT NULL,
  reference text,
  created_at timestamptz(3) NOT NULL,
  recorded_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT ledger_pk PRIMARY KEY (account_id, version),
  CONSTRAINT ledger_version_positive CHECK (version > 0),
  CONSTRAINT ledger_amount_not_zero CHECK (amount <> 0)
);

COMMENT ON TABLE ledger IS 'Append-only audit trail. balance is what this entry left; created_at when it was accepted, recorded_at when it was written here.';
