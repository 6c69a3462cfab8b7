// SQL that finds changes by their event id, and transfers by theirs: in ledger and outbox, so as soon as they were answered.
import { type Change, eventId, SELECT_CHANGE } from '../../shared/change.ts';
import type { TransferLeg } from '../../shared/contract.ts';
import type { Pool } from '../../shared/database.ts';
import type { ChangeName } from './event-id.ts';

const FIND = `
  SELECT ${SELECT_CHANGE} FROM ledger WHERE account_id = $1 AND version = $2 AND epoch = $3
  UNION ALL
  SELECT ${SELECT_CHANGE} FROM outbox WHERE account_id = $1 AND version = $2 AND epoch = $3
  LIMIT 1`;

/** Undefined when there is no such change. */
export async function findChange(pool: Pool, { accountId, version, epoch }: ChangeName): Promise<Change | undefined> {
  return (await pool.query<Change>(FIND, [accountId, version, epoch])).rows[0];
}

// A leg is in the outbox until the ledger has it, and a while longer: UNION takes the two for one.
const LEGS = `
  SELECT ${SELECT_CHANGE} FROM ledger WHERE transfer_id = $1
  UNION
  SELECT ${SELECT_CHANGE} FROM outbox WHERE transfer_id = $1
  ORDER BY "accountId"`;

/** All legs, by account; none when there is no such transfer. */
export async function findLegs(pool: Pool, transferId: string): Promise<Change[]> {
  return (await pool.query<Change>(LEGS, [transferId])).rows;
}

/** As the answer to a transfer. */
export interface FoundTransfer {
  transferId: string;
  legs: TransferLeg[];
  createdAt: Date;
  reference?: string;
  metadata?: Record<string, string>;
  actor?: string;
  reverses?: string;
}

/** With what all its legs have in common. */
export async function findTransfer(pool: Pool, transferId: string): Promise<FoundTransfer | undefined> {
  const legs = await findLegs(pool, transferId);
  const payer = legs.find((leg) => eventId(leg) === transferId);
  if (!payer) return undefined;
  const createdAt = new Date(Math.max(...legs.map((leg) => leg.createdAt.getTime())));
  return {
    transferId,
    legs: legs.map((leg): TransferLeg => {
      const { accountId, amount, balance, version } = leg;
      return { accountId, amount, balance, version, eventId: eventId(leg) };
    }),
    createdAt,
    ...(payer.reference === null ? {} : { reference: payer.reference }),
    ...(payer.metadata === null ? {} : { metadata: JSON.parse(payer.metadata) }),
    ...(payer.actor === null ? {} : { actor: payer.actor }),
    ...(payer.reverses === null ? {} : { reverses: payer.reverses }),
  };
}
