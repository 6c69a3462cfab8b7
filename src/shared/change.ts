// A change of an account as stored in outbox and ledger: the single list of its columns, and the
// fields that answers, events and exports show.
import type { ChangeBody, ChangeType } from './contract.ts';

/** Amounts are minor units. What does not apply is null. */
export interface Change {
  accountId: string;
  version: number;
  epoch: number;
  /** Of the version before; null at version 0. */
  previousEpoch: number | null;
  type: ChangeType;
  asset: string;
  /** 0 where no money moved. */
  amount: number;
  heldChange: number;
  /** Balance, held and hold are as this change left them. */
  balance: number;
  held: number;
  createdAt: Date;
  reference: string | null;
  /** Name of the client whose API key the request was sent with, null if authentication is off. */
  actor: string | null;
  /** The JSON text that is hashed: {@link metadataText}. */
  metadata: string | null;
  transferId: string | null;
  reverses: string | null;
  holdId: string | null;
  holdStatus: 'active' | 'captured' | 'released' | 'expired' | null;
  holdRemaining: number | null;
  holdExpiresAt: Date | null;
  /** The limits after it, given by account.* alone. */
  overdraftLimit: number | null;
  maxBalance: number | null;
  status: 'open' | 'frozen' | 'closed' | null;
}

/** Column of the tables outbox and ledger, its type, and its name in {@link Change}. */
export const CHANGE_COLUMNS = [
  ['account_id', 'text', 'accountId'],
  ['version', 'bigint', 'version'],
  ['epoch', 'bigint', 'epoch'],
  ['previous_epoch', 'bigint', 'previousEpoch'],
  ['type', 'text', 'type'],
  ['asset', 'text', 'asset'],
  ['amount', 'bigint', 'amount'],
  ['held_change', 'bigint', 'heldChange'],
  ['balance', 'bigint', 'balance'],
  ['held', 'bigint', 'held'],
  ['created_at', 'timestamptz', 'createdAt'],
  ['reference', 'text', 'reference'],
  ['actor', 'text', 'actor'],
  ['metadata', 'text', 'metadata'],
  ['transfer_id', 'text', 'transferId'],
  ['reverses', 'text', 'reverses'],
  ['hold_id', 'text', 'holdId'],
  ['hold_status', 'text', 'holdStatus'],
  ['hold_remaining', 'bigint', 'holdRemaining'],
  ['hold_expires_at', 'timestamptz', 'holdExpiresAt'],
  ['overdraft_limit', 'bigint', 'overdraftLimit'],
  ['max_balance', 'bigint', 'maxBalance'],
  ['status', 'text', 'status'],
] as const satisfies readonly (readonly [string, 'text' | 'bigint' | 'timestamptz', keyof Change])[];

/** `account_id, version, …`: for INSERT, and for comparing two rows. */
export const CHANGE_COLUMN_NAMES = CHANGE_COLUMNS.map(([column]) => column).join(', ');
/** A select list whose rows are of type {@link Change}. */
export const SELECT_CHANGE = CHANGE_COLUMNS.map(([column, , name]) => `${column} AS "${name}"`).join(', ');
/** A row of the columns of a table, to be compared with another by IS NOT DISTINCT FROM. */
export const changeRow = (table: string) => `(${CHANGE_COLUMNS.map(([column]) => `${table}.${column}`).join(', ')})`;

/** Unique permanently: the same change always has the same id, and another history of the account has others. */
export function eventId({ accountId, version, epoch }: Pick<Change, 'accountId' | 'version' | 'epoch'>): string {
  return `${accountId}:${version}:${digitsOf(epoch)}`;
}

let last = { epoch: 0, digits: '0' };

/** In base 36, cached: it is nearly always the same number, and slow to format. */
function digitsOf(epoch: number): string {
  if (epoch !== last.epoch) last = { epoch, digits: epoch.toString(36) };
  return last.digits;
}

/** What events, entries and exports show of a change: fields that do not apply are left out. */
export function changeBody(change: Change): ChangeBody {
  const body: ChangeBody = {
    version: change.version,
    epoch: change.epoch,
    asset: change.asset,
    amount: change.amount,
    heldChange: change.heldChange,
    balance: change.balance,
    held: change.held,
  };
  if (change.previousEpoch !== null) body.previousEpoch = change.previousEpoch;
  if (change.reference !== null) body.reference = change.reference;
  if (change.actor !== null) body.actor = change.actor;
  if (change.metadata !== null) body.metadata = JSON.parse(change.metadata);
  if (change.transferId !== null) body.transferId = change.transferId;
  if (change.reverses !== null) body.reverses = change.reverses;
  if (change.holdId !== null && change.holdStatus !== null && change.holdRemaining !== null) {
    body.hold = { id: change.holdId, status: change.holdStatus, remaining: change.holdRemaining };
    if (change.holdExpiresAt !== null) body.hold.expiresAt = change.holdExpiresAt.toISOString();
  }
  if (change.overdraftLimit !== null && change.status !== null) {
    body.limits = { overdraftLimit: change.overdraftLimit, status: change.status };
    if (change.maxBalance !== null) body.limits.maxBalance = change.maxBalance;
  }
  return body;
}

/** Canonical JSON, with the members in order of their names. JSON.stringify alone puts names such as "7" first. */
export function metadataText(metadata: Readonly<Record<string, string>>): string {
  const members = Object.keys(metadata)
    .sort()
    .map((name) => `${JSON.stringify(name)}:${JSON.stringify(metadata[name])}`);
  return `{${members.join(',')}}`;
}

/** The inverse: a change from the body of an event. @param body checked before. */
export function changeOf(accountId: string, type: ChangeType, createdAt: Date, body: ChangeBody): Change {
  const { version, epoch, asset, amount, heldChange, balance, held, hold, limits, metadata } = body;
  return {
    ...{ accountId, version, epoch, type, asset, amount, heldChange, balance, held, createdAt },
    previousEpoch: body.previousEpoch ?? null,
    reference: body.reference ?? null,
    actor: body.actor ?? null,
    metadata: metadata === undefined ? null : metadataText(metadata),
    transferId: body.transferId ?? null,
    reverses: body.reverses ?? null,
    holdId: hold?.id ?? null,
    holdStatus: hold?.status ?? null,
    holdRemaining: hold?.remaining ?? null,
    holdExpiresAt: hold?.expiresAt === undefined ? null : new Date(hold.expiresAt),
    overdraftLimit: limits?.overdraftLimit ?? null,
    maxBalance: limits?.maxBalance ?? null,
    status: limits?.status ?? null,
  };
}
