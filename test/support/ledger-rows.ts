// Ledger entries put into the database directly, without their way through outbox and broker.
import type pg from 'pg';
import { CHANGE_COLUMN_NAMES, CHANGE_COLUMNS, type Change } from '../../src/shared/change.ts';

export const LEDGER_EPOCH = Date.parse('2026-11-23T20:00:00.000Z');

/**
 * A change of an account's money, or its opening at version 0. What is not said is as if every
 * change had been +1.
 */
export function changeRow(accountId: string, version: number, members: Partial<Change> = {}): Change {
  const isOpening = version === 0;
  return {
    accountId,
    version,
    epoch: LEDGER_EPOCH,
    previousEpoch: isOpening ? null : LEDGER_EPOCH,
    type: isOpening ? 'account.opened' : 'balance.credited',
    asset: 'UNIT',
    amount: isOpening ? 0 : 1,
    heldChange: 0,
    balance: version,
    held: 0,
    createdAt: new Date('2026-11-23T20:00:00.000Z'),
    reference: null,
    actor: null,
    metadata: null,
    transferId: null,
    reverses: null,
    holdId: null,
    holdStatus: null,
    holdRemaining: null,
    holdExpiresAt: null,
    overdraftLimit: isOpening ? 0 : null,
    maxBalance: null,
    status: isOpening ? 'open' : null,
    ...members,
  };
}

const UNNEST = CHANGE_COLUMNS.map(([, type], index) => `$${index + 1}::${type}[]`).join(', ');

export async function insertEntries(pool: Pick<pg.Pool, 'query'>, changes: readonly Change[]): Promise<void> {
  const values = CHANGE_COLUMNS.map(([, , name]) =>
    changes.map((change) => {
      const value = change[name];
      return value instanceof Date ? value.toISOString() : value;
    }),
  );
  await pool.query(`INSERT INTO ledger (${CHANGE_COLUMN_NAMES}) SELECT * FROM unnest(${UNNEST})`, values);
}

/**
 * Versions `first` to `last` of many accounts, each +1, as if the accounts had taken turns. With an
 * actor, also references.
 */
export async function fillLedger(
  pool: Pick<pg.Pool, 'query'>,
  accounts: readonly string[],
  first: number,
  last: number,
  actor: string | null = null,
): Promise<void> {
  await pool.query(
    `INSERT INTO ledger (
       account_id, version, epoch, previous_epoch, amount, held_change, balance, held, created_at, type, asset, overdraft_limit, status,
       reference, actor
     )
     SELECT account_id, version, ${LEDGER_EPOCH}, CASE WHEN version > 0 THEN ${LEDGER_EPOCH} END, (version > 0)::integer, 0, version, 0,
            '2026-11-23T20:00:00Z', CASE WHEN version > 0 THEN 'balance.credited' ELSE 'account.opened' END, 'UNIT',
            CASE WHEN version = 0 THEN 0 END, CASE WHEN version = 0 THEN 'open' END,
            CASE WHEN $4::text IS NOT NULL THEN 'order ' || version END, $4
     FROM unnest($1::text[]) AS account_id CROSS JOIN generate_series($2::bigint, $3::bigint) AS version
     ORDER BY version, account_id`,
    [accounts, first, last, actor],
  );
}

/** Account rows that fit a history of {@link fillLedger} up to a version, without an outbox row. */
export async function insertAccountRows(
  pool: Pick<pg.Pool, 'query'>,
  accounts: readonly string[],
  version: number,
): Promise<void> {
  await pool.query(
    `INSERT INTO account (account_id, balance, version, epoch, created_at, updated_at)
     SELECT account_id, $2, $2, ${LEDGER_EPOCH}, '2026-11-23T20:00:00Z', '2026-11-23T20:00:00Z' FROM unnest($1::text[]) AS account_id`,
    [accounts, version],
  );
}

/** From now on history can be changed at will: what a superuser could do. */
export async function disarm(pool: Pick<pg.Pool, 'query'>): Promise<void> {
  await pool.query('ALTER TABLE ledger DISABLE TRIGGER ALL; ALTER TABLE ledger_chain DISABLE TRIGGER ALL');
  await pool.query(`
    DO $$
    DECLARE
      one record;
    BEGIN
      FOR one IN SELECT conrelid::regclass AS name, conname FROM pg_constraint
                 WHERE contype = 'c' AND conrelid IN ('ledger'::regclass, 'ledger_chain'::regclass, 'account'::regclass) LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', one.name, one.conname);
      END LOOP;
    END
    $$`);
}
