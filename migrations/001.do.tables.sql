-- The tables of accounts and their changes. docs/database.md has a diagram, and lists what writes,
-- truncates and expires each.
--
-- Keys start with account_id and no foreign keys connect the tables: a foreign key would make each
-- insert take a share lock on the hot account row, and npm run verify proves what they would
-- guarantee, and more.
-- Amounts and balances are whole minor units, at most 2^53 - 1 in size, so that no JSON client ever
-- rounds one.
-- Identifiers use COLLATE "C": byte order is the same on every server, and locks are taken in that
-- order.
-- No literal here contains a backslash: its meaning would change with standard_conforming_strings
-- off.

-- A domain checks the form of an identifier, because an UPDATE of other columns does not evaluate
-- it; a CHECK of the table would run for each update of a balance (3.8 µs of 12.5). A negated class
-- and a separate length check take 0.3 µs; one expression with {1,64} and a lookahead takes 15.
CREATE DOMAIN account_id AS text COLLATE "C"
  CONSTRAINT account_id_form CHECK (VALUE !~ '[^A-Za-z0-9._:-]' AND octet_length(VALUE) BETWEEN 1 AND 64 AND VALUE NOT IN ('.', '..'));
CREATE DOMAIN asset_code AS text COLLATE "C"
  CONSTRAINT asset_code_form CHECK (VALUE !~ '[^A-Z0-9/._-]' AND octet_length(VALUE) BETWEEN 1 AND 20);
CREATE DOMAIN hold_id AS text COLLATE "C"
  CONSTRAINT hold_id_form CHECK (VALUE !~ '[^A-Za-z0-9._:-]' AND octet_length(VALUE) BETWEEN 1 AND 64 AND VALUE NOT IN ('.', '..'));

CREATE TABLE account (
  account_id account_id CONSTRAINT account_pk PRIMARY KEY,
  asset asset_code NOT NULL DEFAULT 'UNIT',
  balance bigint NOT NULL DEFAULT 0,
  held bigint NOT NULL DEFAULT 0,
  version bigint NOT NULL DEFAULT 0,
  epoch bigint NOT NULL,
  overdraft_limit bigint NOT NULL DEFAULT 0,
  max_balance bigint,
  status text NOT NULL DEFAULT 'open',
  created_at timestamptz(3) NOT NULL,
  updated_at timestamptz(3) NOT NULL,
  CONSTRAINT account_balance_in_range CHECK (balance BETWEEN -9007199254740991 AND 9007199254740991),
  CONSTRAINT account_held_in_range CHECK (held BETWEEN 0 AND 9007199254740991),
  CONSTRAINT account_version_in_range CHECK (version BETWEEN 0 AND 9007199254740991),
  CONSTRAINT account_overdraft_limit_in_range CHECK (overdraft_limit BETWEEN 0 AND 9007199254740991),
  CONSTRAINT account_max_balance_in_range CHECK (max_balance BETWEEN 0 AND 9007199254740991),
  CONSTRAINT account_not_overdrawn CHECK (balance - held >= -overdraft_limit),
  CONSTRAINT account_status_known CHECK (status IN ('open', 'frozen', 'closed')),
  CONSTRAINT account_closed_is_empty CHECK (status <> 'closed' OR balance = 0 AND held = 0)
) WITH (fillfactor = 80);
-- fillfactor: room for heap-only updates, since no indexed column changes after creation.

COMMENT ON TABLE account IS 'The balance of record. version counts the changes of an account (money, hold, limit, status) and rises by exactly 1 with each; its opening is version 0.';
COMMENT ON COLUMN account.held IS 'Minor units that active holds set aside: the sum of their remaining amounts.';
COMMENT ON COLUMN account.epoch IS 'Of the last change, see epoch.';
COMMENT ON COLUMN account.max_balance IS 'Credits above it are declined; null: no limit.';

-- Money set aside for a later capture.
CREATE TABLE hold (
  account_id text COLLATE "C" NOT NULL,
  hold_id hold_id NOT NULL,
  amount bigint NOT NULL,
  captured bigint NOT NULL DEFAULT 0,
  remaining bigint NOT NULL,
  status text NOT NULL DEFAULT 'active',
  expires_at timestamptz(3),
  client text COLLATE "C" NOT NULL,
  fingerprint bytea NOT NULL CONSTRAINT hold_fingerprint_is_16_bytes CHECK (octet_length(fingerprint) = 16),
  reference text,
  metadata text,
  created_at timestamptz(3) NOT NULL,
  updated_at timestamptz(3) NOT NULL,
  CONSTRAINT hold_pk PRIMARY KEY (account_id, hold_id),
  CONSTRAINT hold_amount_in_range CHECK (amount BETWEEN 1 AND 9007199254740991),
  CONSTRAINT hold_captured_in_range CHECK (captured BETWEEN 0 AND amount),
  CONSTRAINT hold_remaining_in_range CHECK (remaining BETWEEN 0 AND amount - captured),
  CONSTRAINT hold_status_known CHECK (status IN ('active', 'captured', 'released', 'expired')),
  CONSTRAINT hold_active_while_remaining CHECK ((status = 'active') = (remaining > 0))
) WITH (fillfactor = 80);
CREATE INDEX hold_active ON hold (account_id, expires_at) WHERE status = 'active';
-- For the sweep across all accounts. Its condition is written differently for the same holds, so
-- that no plan searches all due holds for those of one account.
CREATE INDEX hold_due ON hold (expires_at) WHERE remaining > 0 AND expires_at IS NOT NULL;

COMMENT ON TABLE hold IS 'One row a hold, permanently. client and fingerprint are those of the request that placed it: a retry finds them equal.';

-- How much of a change has been reversed. The key is the change's own account, version and epoch,
-- so the row is protected by the lock of that account.
CREATE TABLE reversal (
  account_id text COLLATE "C" NOT NULL,
  version bigint NOT NULL,
  epoch bigint NOT NULL,
  original bigint NOT NULL,
  reversed bigint NOT NULL,
  CONSTRAINT reversal_pk PRIMARY KEY (account_id, version, epoch),
  CONSTRAINT reversal_within_original CHECK (reversed BETWEEN 1 AND original)
) WITH (fillfactor = 80);

COMMENT ON TABLE reversal IS 'The sum of the reversals of a change, or of a transfer by its lowest debited leg; amounts without a sign.';

-- One row for each start of the server, promotion or restore, after which history may differ. A
-- change carries the newest epoch, so that a subscriber can distinguish two histories with the same
-- versions.
CREATE TABLE epoch (
  epoch bigint CONSTRAINT epoch_pk PRIMARY KEY,
  timeline text NOT NULL,
  server_started_at timestamptz NOT NULL,
  database_name text COLLATE "C" NOT NULL,
  table_oid oid NOT NULL,
  raised_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT epoch_in_range CHECK (epoch BETWEEN 1 AND 9007199254740991)
);

COMMENT ON TABLE epoch IS 'Append-only. epoch is the later of the clock in milliseconds since 1970 and the last epoch + 1. Written by current_epoch().';
COMMENT ON COLUMN epoch.table_oid IS 'Of this table. Another one has the rows of a dump.';

-- Changes on their way to RabbitMQ and the ledger. position is assigned under the account's lock,
-- so within one account it rises with version; across accounts it is neither gapless nor in commit
-- order (the relay copes with both).
--
-- Insert-only: deleting row by row would leave dead rows that an old snapshot (a backup, a
-- forgotten transaction) keeps alive, and the queue would slow down. Instead, a bit of the position
-- selects one of two partitions. From time to time the relay moves the sequence to the next block,
-- and so all writers to the other partition, and truncates the old one when all of it is recorded.
-- Always read the whole outbox: both partitions may hold current rows.
CREATE SEQUENCE outbox_position AS bigint;

CREATE TABLE outbox (
  position bigint NOT NULL DEFAULT nextval('outbox_position'),
  account_id text COLLATE "C" NOT NULL,
  version bigint NOT NULL,
  epoch bigint NOT NULL,
  previous_epoch bigint,
  amount bigint NOT NULL DEFAULT 0,
  held_change bigint NOT NULL DEFAULT 0,
  balance bigint NOT NULL,
  held bigint NOT NULL DEFAULT 0,
  created_at timestamptz(3) NOT NULL,
  type text NOT NULL,
  asset text NOT NULL,
  reference text,
  actor text,
  traceparent text,
  metadata text,
  transfer_id text COLLATE "C",
  reverses text COLLATE "C",
  hold_id text COLLATE "C",
  hold_status text,
  hold_remaining bigint,
  hold_expires_at timestamptz(3),
  overdraft_limit bigint,
  max_balance bigint,
  status text
) PARTITION BY LIST (((position >> 26) & 1)); -- blocks of 67,108,864 positions; see functions/switch_outbox_partition.sql
ALTER SEQUENCE outbox_position OWNED BY outbox.position;

-- Each partition has its own keys: a key of the parent table would have to include the partitioning
-- expression, which is impossible.
CREATE TABLE outbox_even PARTITION OF outbox (
  CONSTRAINT outbox_even_pk PRIMARY KEY (account_id, version),
  CONSTRAINT outbox_even_position_unique UNIQUE (position)
) FOR VALUES IN (0) WITH (autovacuum_enabled = false);
CREATE TABLE outbox_odd PARTITION OF outbox (
  CONSTRAINT outbox_odd_pk PRIMARY KEY (account_id, version),
  CONSTRAINT outbox_odd_position_unique UNIQUE (position)
) FOR VALUES IN (1) WITH (autovacuum_enabled = false);
-- autovacuum: no row is ever deleted, and truncation resets them.

-- The legs of a transfer are in several accounts. Partial: an update of one account costs nothing
-- here.
CREATE INDEX outbox_even_transfer ON outbox_even (transfer_id) WHERE transfer_id IS NOT NULL;
CREATE INDEX outbox_odd_transfer ON outbox_odd (transfer_id) WHERE transfer_id IS NOT NULL;

COMMENT ON TABLE outbox IS 'Accepted changes, until their entry is recorded, subscribers have their event, and every remaining snapshot contains the entry. The columns are those of ledger.';

-- The progress of the relay, for each of its tracks: everything up to the highest position of a
-- track is done, so a new relay starts after it. Insert-only for the same reason as the outbox, and
-- truncated from time to time.
CREATE TABLE relay_progress (
  track text COLLATE "C" NOT NULL,
  position bigint NOT NULL,
  CONSTRAINT relay_progress_pk PRIMARY KEY (track, position),
  CONSTRAINT relay_progress_track_known CHECK (track IN ('ledger', 'published', 'subscribers'))
) WITH (autovacuum_enabled = false);

COMMENT ON TABLE relay_progress IS 'published: to the ledger queue, and confirmed. ledger: recorded as well. subscribers: confirmed by every queue that subscribers bound, or passed over and noted in missed.';

-- Events that subscribers did not get, because one of their queues accepted none for longer than
-- the outbox waits.
CREATE TABLE missed (
  missed_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT missed_pk PRIMARY KEY,
  queue text,
  routing_keys text[],
  first_position bigint NOT NULL,
  last_position bigint,
  first_created_at timestamptz(3) NOT NULL,
  last_created_at timestamptz(3),
  noted_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  delivered_at timestamptz(3),
  -- No check of the times: positions are assigned after the clock was read, so a higher one can
  -- have an earlier time.
  CONSTRAINT missed_in_order CHECK (last_position >= first_position)
);

COMMENT ON TABLE missed IS 'Positions of the outbox, and when the changes there were created, for replay. queue null: every subscriber. For a queue that was put aside, routing_keys are those of its bindings, and the last position and time are null until it is bound again. delivered_at: when it was delivered, or no longer needed.';
