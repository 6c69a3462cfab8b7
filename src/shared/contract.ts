// The contents of HTTP bodies and events, as plain types: the client is published with them,
// without zod. The compiler compares them with the schemas of requests and events
// (test/unit/contract.test.ts); tests compare them with real answers.

/** Updates in one bulk request, or transfers. */
export const BULK_UPDATES_MAX = 1000;
/** Accounts of one transfer. */
export const TRANSFER_LEGS_MAX = 100;
/** Most changes that one request can make, of any kind. */
export const LEGS_MAX = 2000;

export interface Account {
  id: string;
  /** The unit it counts: 1 to 20 of `A-Z 0-9 / . _ -`, fixed at its opening. */
  asset: string;
  /** Minor units, from `-overdraftLimit` to 2^53 - 1. */
  balance: number;
  /** Minor units that active holds set aside. */
  held: number;
  /** `balance + overdraftLimit - held`, 2^53 - 1 at most: what a debit or a hold can take. */
  available: number;
  /** Number of its last change. The opening is 0. */
  version: number;
  /** Minor units: how far below 0 the balance may go. */
  overdraftLimit: number;
  /** The highest balance that a credit may leave, in minor units; null: no limit. */
  maxBalance: number | null;
  /** A frozen account takes no updates until it is open again; a closed one stays closed. */
  status: 'open' | 'frozen' | 'closed';
  /** UTC, `2026-11-23T19:43:56.550Z`, as all times here. */
  createdAt: string;
  /** The last change. */
  updatedAt: string;
}

export interface NewAccount {
  /** 1 to 64 characters of `A-Z a-z 0-9 . _ : -`, and not `.` or `..`. */
  id: string;
  /** `UNIT` when left out. */
  asset?: string | undefined;
  /** Minor units; 0 when left out. */
  overdraftLimit?: number | undefined;
  /** Minor units; no limit when left out. */
  maxBalance?: number | null | undefined;
}

/** At least one of them. */
export interface AccountChange {
  overdraftLimit?: number | undefined;
  /** null: no limit. */
  maxBalance?: number | null | undefined;
  status?: 'open' | 'frozen' | 'closed' | undefined;
}

export interface BalanceUpdate {
  accountId: string;
  /** Minor units, a whole number other than 0: a credit is positive, a debit negative. */
  amount: number;
  /**
   * 1 to 255 characters, your own note such as an order number. It is returned in the event and in
   * the entry.
   */
  reference?: string | undefined;
  /**
   * Up to 16 texts by name, 1 KiB in total, kept permanently: no personal data. Names are 1 to 40
   * of `a-z 0-9 _ . -`.
   */
  metadata?: Record<string, string> | undefined;
  /** If the account has another version, the update is declined as `version_mismatch`. */
  expectedVersion?: number | undefined;
  /** For a debit: take what is available, at most `amount` and at least 1. */
  upTo?: boolean | undefined;
}

/** An update of a bulk request; a single one has its key in a header. */
export interface BulkUpdate extends BalanceUpdate {
  /** 1 to 255 printable ASCII characters. */
  idempotencyKey?: string | undefined;
}

export interface AppliedUpdate {
  accountId: string;
  amount: number;
  /** What this change left; others may have followed. */
  balance: number;
  /** Number of this change within its account, without a gap: the first after the opening is 1. */
  version: number;
  /** `<accountId>:<version>:<epoch in base 36>`, of its event and its ledger entry. */
  eventId: string;
  /** When it was accepted. */
  createdAt: string;
}

/** The part of a transfer that credits or debits one account. */
export interface TransferLeg {
  accountId: string;
  /** Minor units: a credit is positive. */
  amount: number;
  /** What this leg left; other changes may have followed. */
  balance: number;
  version: number;
  eventId: string;
}

/** Either `from`, `to` and `amount`, or `legs`: 2 to 100, each account once, with the sum 0. */
export interface NewTransfer {
  from?: string | undefined;
  to?: string | undefined;
  /** Minor units, 1 or more. */
  amount?: number | undefined;
  legs?: { accountId: string; amount: number }[] | undefined;
  reference?: string | undefined;
  metadata?: Record<string, string> | undefined;
}

/** A transfer of a bulk request; a single one has its key in a header. */
export interface BulkTransfer extends NewTransfer {
  idempotencyKey?: string | undefined;
}

export interface Transfer {
  /** Event id of its lowest debited leg. */
  transferId: string;
  /** In order of account, by bytes. */
  legs: TransferLeg[];
  createdAt: string;
}

/** As it was answered, with what its legs have in common. */
export interface PastTransfer extends Transfer {
  reference?: string | undefined;
  metadata?: Record<string, string> | undefined;
  /** The client that sent it. */
  actor?: string | undefined;
  /** Id of the transfer that it reverses. */
  reverses?: string | undefined;
}

export interface NewReversal {
  /** An eventId, or the transferId of a whole transfer. */
  of: string;
  /** Minor units, 1 or more; as much as is left when left out. */
  amount?: number | undefined;
  reference?: string | undefined;
  metadata?: Record<string, string> | undefined;
}

export interface Reversal {
  /** The id that was sent as `of`. */
  reverses: string;
  /** Present when a transfer was reversed: the reversal is a transfer too. */
  transferId?: string | undefined;
  legs: TransferLeg[];
  createdAt: string;
}

export interface NewHold {
  /** Chosen by you; unique within the account, permanently. A retry with the same id is safe. */
  holdId: string;
  /** Minor units, 1 or more. */
  amount: number;
  /** 1 to 31,536,000; it does not expire when left out. */
  expiresInSeconds?: number | undefined;
  reference?: string | undefined;
  metadata?: Record<string, string> | undefined;
}

/** Money of an account that is set aside. */
export interface Hold {
  accountId: string;
  holdId: string;
  status: 'active' | 'captured' | 'released' | 'expired';
  /** Minor units it was placed with or changed to. */
  amount: number;
  captured: number;
  /** What is still set aside. */
  remaining: number;
  /** null: it does not expire. */
  expiresAt: string | null;
  createdAt: string;
  updatedAt: string;
}

export interface HoldsPage {
  /** In order of id, by bytes. */
  holds: Hold[];
  nextCursor: string | null;
}

export interface HoldCapture {
  /** Minor units, 1 or more; all that is left when left out. */
  amount?: number | undefined;
  /** Whether the rest is released; true when left out. */
  final?: boolean | undefined;
  /** The account that gets it: the capture is a transfer then. */
  to?: string | undefined;
  reference?: string | undefined;
  metadata?: Record<string, string> | undefined;
}

export interface HoldRelease {
  /** Minor units, 1 or more; all that is left when left out. */
  amount?: number | undefined;
  reference?: string | undefined;
  metadata?: Record<string, string> | undefined;
}

/** At least one of amount and expiresInSeconds. */
export interface HoldChange {
  /** The new total, including what was already captured and released. */
  amount?: number | undefined;
  /** From now on; null: it does not expire. */
  expiresInSeconds?: number | null | undefined;
  reference?: string | undefined;
  metadata?: Record<string, string> | undefined;
}

/** The result of an operation on a hold: the change of the account, and the hold after it. */
export interface HoldAnswer extends AppliedUpdate {
  hold: Hold;
}

export interface CaptureAnswer extends HoldAnswer {
  /** With `to`: the id of the transfer, and the leg of the receiving account. */
  transferId?: string | undefined;
  to?: TransferLeg | undefined;
}

export interface AccountsPage {
  /** In order of id, by bytes. */
  accounts: Account[];
  /** Send it to get the next page; null on the last one. */
  nextCursor: string | null;
}

/** The balance of an account at one of its versions. */
export interface PastBalance {
  accountId: string;
  /** Of the last change up to then; null before its opening. */
  version: number | null;
  balance: number;
  held: number;
  /** When that change was accepted; null before the opening. */
  createdAt: string | null;
}

/** The newest hash over the ledger of an account. */
export interface ChainHead {
  accountId: string;
  /** Of the last entry that was hashed; null when none was. */
  version: number | null;
  /**
   * The epoch of that entry: identifies the history of the account if the database loses commits.
   *
   */
  epoch: number | null;
  /** SHA-256, in lower-case hexadecimal digits. */
  hash: string;
}

/** Entries that were hashed together. */
export interface ChainSegment {
  firstVersion: number;
  lastVersion: number;
  /** SHA-256 over them and the hash before, in lower-case hexadecimal digits. */
  hash: string;
}

export interface ChainSegmentsPage {
  accountId: string;
  /** Oldest first, from version 0 without a gap. */
  segments: ChainSegment[];
  /** Send it to get the next page; null on the last one. */
  nextCursor: string | null;
}

/** Whether the history of an account is consistent. */
export interface AccountVerification {
  accountId: string;
  /** Whether there are no problems. */
  verified: boolean;
  /** What is wrong, one sentence each. */
  problems: string[];
  /** Of the account: the number of its last change. */
  version: number;
  ledgerEntries: number;
  /** Changes whose entry is not in the ledger yet. */
  pendingChanges: number;
  /** Entries that have no hash yet. */
  unchainedEntries: number;
}

/** Also the routing key of the event. */
export const CHANGE_TYPES = [
  'account.opened',
  'account.changed',
  'balance.credited',
  'balance.debited',
  'hold.placed',
  'hold.changed',
  'hold.released',
  'hold.expired',
] as const;
export type ChangeType = (typeof CHANGE_TYPES)[number];

/**
 * The fields of a change that events and entries show. Amounts are minor units; what does not apply
 * is absent.
 */
export interface ChangeBody {
  version: number;
  /**
   * Identifies the history of the account: after a restore, the same version can stand for another
   * change, and has another epoch.
   */
  epoch: number;
  /** Of the version before; absent at version 0. */
  previousEpoch?: number | undefined;
  asset: string;
  /** 0 where no money moved. */
  amount: number;
  heldChange: number;
  /** Balance, held and hold are as this change left them. */
  balance: number;
  held: number;
  reference?: string | undefined;
  /** Name of the client whose API key the request was sent with; absent if authentication is off. */
  actor?: string | undefined;
  metadata?: Record<string, string> | undefined;
  /** Event id of the lowest debited leg of the transfer that it belongs to. */
  transferId?: string | undefined;
  /** Event id of the change, or id of the transfer, that it reverses. */
  reverses?: string | undefined;
  hold?:
    | {
        id: string;
        status: 'active' | 'captured' | 'released' | 'expired';
        remaining: number;
        /** Absent: it does not expire. */
        expiresAt?: string | undefined;
      }
    | undefined;
  /** After an `account.*`; without `maxBalance` there is no such limit. */
  limits?:
    | { overdraftLimit: number; status: 'open' | 'frozen' | 'closed'; maxBalance?: number | undefined }
    | undefined;
}

/** One change in the ledger. */
export interface Entry extends ChangeBody {
  eventId: string;
  type: ChangeType;
  createdAt: string;
  /** When it was written to the ledger. */
  recordedAt: string;
}

export interface EntriesPage {
  accountId: string;
  /** Of the account: the number of its last change. */
  version: number;
  /**
   * The ledger has every version up to it; below `version` while entries are still being recorded,
   * null while it lacks the first.
   */
  ledgerVersion: number | null;
  /**
   * Newest first, from `ledgerVersion` down without a gap. With filters, a page may hold few
   * entries or none although more pages follow.
   */
  entries: Entry[];
  /** Send it to get the next page; null on the last one. */
  nextCursor: string | null;
}

/** One thing that is wrong with a request. */
export interface InvalidInput {
  /** JSON pointer into the body, or `header X`, `path X`, `query X`. */
  where: string;
  what: string;
}

/** Members of a problem document besides the standard ones. */
export interface ProblemDetails {
  /** One sentence about this case: what to change. */
  detail?: string;
  errors?: InvalidInput[];
  accountId?: string;
  balance?: number;
  version?: number;
  /** Its current state, when the refusal is about it. */
  hold?: Hold;
}

export interface EventData extends ChangeBody {
  accountId: string;
}

/** A change as subscribers get it: a CloudEvents 1.0 event. */
export interface BalanceEvent {
  specversion: '1.0';
  /** `<accountId>:<version>:<epoch in base 36>`: the same change always has the same id, and no other ever has it. */
  id: string;
  source: '/highload-balance';
  /** Also the routing key. */
  type: ChangeType;
  /** The account. */
  subject: string;
  /** When the change was accepted. */
  time: string;
  datacontenttype: 'application/json';
  /** W3C trace context of the request, when it sent one. In a message with one event it is a header. */
  traceparent?: string | undefined;
  data: EventData;
}
