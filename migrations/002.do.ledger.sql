-- The audit ledger and its hash chains. Both are append-only: the triggers of
-- functions/refuse_change_of_history.sql refuse everything but inserts, and no role is granted
-- more.

-- One entry for each change, permanently.
CREATE TABLE ledger (
  account_id text COLLATE "C" NOT NULL,
  version bigint NOT NULL,
  epoch bigint NOT NULL,
  previous_epoch bigint,
  amount bigint NOT NULL,
  held_change bigint NOT NULL,
  balance bigint NOT NULL,
  held bigint NOT NULL,
  created_at timestamptz(3) NOT NULL,
  recorded_at timestamptz(3) NOT NULL DEFAULT clock_timestamp(),
  type text NOT NULL,
  asset text NOT NULL,
  reference text,
  actor text,
  metadata text,
  transfer_id text COLLATE "C",
  reverses text COLLATE "C",
  hold_id text COLLATE "C",
  hold_status text,
  hold_remaining bigint,
  hold_expires_at timestamptz(3),
  overdraft_limit bigint,
  max_balance bigint,
  status text,
  CONSTRAINT ledger_pk PRIMARY KEY (account_id, version),
  CONSTRAINT ledger_version_not_negative CHECK (version >= 0),
  CONSTRAINT ledger_opens_at_0 CHECK ((version = 0) = (type = 'account.opened') AND (version = 0) = (previous_epoch IS NULL)),
  CONSTRAINT ledger_type_known CHECK (type IN (
    'account.opened', 'account.changed', 'balance.credited', 'balance.debited',
    'hold.placed', 'hold.changed', 'hold.released', 'hold.expired'
  )),
  CONSTRAINT ledger_type_says_the_sign CHECK (
    (amount > 0) = (type = 'balance.credited') AND (amount < 0) = (type = 'balance.debited')
  )
) WITH (autovacuum_freeze_min_age = 0, autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_vacuum_insert_threshold = 100000);
-- autovacuum: rows never change, so they are frozen once, soon after they were written and are in
-- memory. By default all of them would be read and written again when their age forces it.

-- Partial: an entry with none of these values only goes into the primary key.
CREATE INDEX ledger_transfer ON ledger (transfer_id) WHERE transfer_id IS NOT NULL;
CREATE INDEX ledger_hold ON ledger (account_id, hold_id, version) WHERE hold_id IS NOT NULL;
CREATE INDEX ledger_reference ON ledger (account_id, reference, version) WHERE reference IS NOT NULL;
-- For verify --since: which limits were in force at a version, and what has reversed a change. Rare entries.
CREATE INDEX ledger_limits ON ledger (account_id, version) WHERE status IS NOT NULL;
CREATE INDEX ledger_reverses ON ledger (account_id, reverses, version) WHERE reverses IS NOT NULL;

COMMENT ON TABLE ledger IS 'Append-only audit trail. balance, held and the hold are as this entry left them; overdraft_limit, max_balance and status are given by account.* alone.';
COMMENT ON COLUMN ledger.created_at IS 'When the change was accepted, by the clock of the database; never before the entry of the version before.';
COMMENT ON COLUMN ledger.recorded_at IS 'When the entry was written here.';
COMMENT ON COLUMN ledger.previous_epoch IS 'Epoch of the version before; null at version 0.';
COMMENT ON COLUMN ledger.metadata IS 'The JSON text that is hashed.';
COMMENT ON COLUMN ledger.transfer_id IS 'Event id of the lowest debited leg.';
COMMENT ON COLUMN ledger.reverses IS 'Event id of the change, or id of the transfer, that this entry reverses.';

-- Tamper evidence: a hash for each segment of an account's entries, over the previous hash and the
-- entries, so that no entry can be altered, removed or inserted unless all later hashes of its
-- account are changed too. docs/ledger-chain.md describes for clients what is hashed; the worker
-- writes the segments in the background.
CREATE TABLE ledger_chain (
  account_id text COLLATE "C" NOT NULL,
  first_version bigint NOT NULL,
  last_version bigint NOT NULL,
  hash bytea NOT NULL,
  CONSTRAINT ledger_chain_pk PRIMARY KEY (account_id, last_version),
  CONSTRAINT ledger_chain_not_empty CHECK (first_version BETWEEN 0 AND last_version),
  CONSTRAINT ledger_chain_hash_is_sha256 CHECK (octet_length(hash) = 32)
) WITH (autovacuum_freeze_min_age = 0, autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_vacuum_insert_threshold = 100000);

COMMENT ON TABLE ledger_chain IS 'Append-only: the segments of an account''s entries, from version 0 without a gap. hash = sha256(hash of the segment before || the canonical bytes of its entries); 32 zero bytes stand before the first one.';
