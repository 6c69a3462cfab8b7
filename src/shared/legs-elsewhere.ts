// Counts the legs in other accounts that verifying an account reads: those of the transfers that it
// pays, and of the reversals that it is part of. One change can have a hundred.
import type pg from 'pg';
import { TRANSFER_LEGS_MAX } from './contract.ts';

// The payer's leg has the version that the transferId names: the epoch after it is checked by the
// verification itself.
const IS_PAID = `starts_with(transfer_id, account_id || ':' || version || ':')`;
const JUDGED = ['ledger', 'outbox']
  .map(
    (table) => `
      SELECT transfer_id FROM ${table}
      WHERE account_id = $1 AND transfer_id IS NOT NULL AND (${IS_PAID} OR reverses IS NOT NULL)`,
  )
  .join(' UNION ');

// The limit within keeps it a look-up by index for each transfer; the one around it ends them.
const COUNT = `
  SELECT count(*) AS legs FROM (
    SELECT FROM (${JUDGED}) judged
    CROSS JOIN LATERAL (
      SELECT leg.account_id, leg.version, leg.epoch FROM ledger leg WHERE leg.transfer_id = judged.transfer_id
      UNION -- a recent leg is in both
      SELECT leg.account_id, leg.version, leg.epoch FROM outbox leg WHERE leg.transfer_id = judged.transfer_id
      LIMIT ${TRANSFER_LEGS_MAX}
    ) legs
    LIMIT $2
  ) counted`;

/** @param most returned if there are more, so the count never costs more than this. */
export async function countLegsElsewhere(
  client: Pick<pg.ClientBase, 'query'>,
  accountId: string,
  most: number,
): Promise<number> {
  return Number((await client.query(COUNT, [accountId, most])).rows[0].legs);
}
