// What stands in HTTP bodies and in events, as plain types: the client is published with them, and who installs it does
// not get zod. The schemas that check requests and events are compared with them by the compiler (test/unit/contract.test.ts),
// the answers by tests that look at real ones.

/** Updates in one bulk request, or transfers. */
export const BULK_UPDATES_MAX = 1000;
/** Accounts of one transfer. */
export const TRANSFER_LEGS_MAX = 100;
/** Changes that one request makes at most, whatever it is of. */
export const LEGS_MAX = 2000;

export interface Account {
  id: string;
  /** What it counts: 1 to 20 of `A-Z 0-9 / . _ -`, fixed at its opening. */
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
  /** Minor units, a whole number but 0: a credit is positive, a debit negative. */
  amount: number;
  /** 1 to 255 characters, your own note such as an order number. It comes back in the event and in the entry. */
  reference?: string | undefined;
  /** Up to 16 texts by name, 1 KiB in all, kept for good: no personal data. Names are 1 to 40 of `a-z 0-9 _ . -`. */
  metadata?: Record<string, string> | undefined;
  /** The account has to be at this version, else the update is declined as `version_mismatch`. */
  expectedVersion?: number | undefined;
  /** Of a debit: take what is available, `amount` at most and 1 at least. */
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

/** What goes to one account or comes from it, in a transfer. */
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
  /** What was reversed, as it was sent. */
  reverses: string;
  /** Where a transfer was reversed: the reversal is one as well. */
  transferId?: string | undefined;
  legs: TransferLeg[];
  createdAt: string;
}

export interface NewHold {
  /** Yours, once for good within the account: a retry with the same one is harmless. */
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
  /** Minor units that it was placed with, or changed to. */
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
  /** Whether what is left after it is released; true when left out. */
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
  /** The new total, with what was captured and released of it. */
  amount?: number | undefined;
  /** From now on; null: it does not expire. */
  expiresInSeconds?: number | null | undefined;
  reference?: string | undefined;
  metadata?: Record<string, string> | undefined;
}

/** What became of a hold: the change of the account, and the hold after it. */
export interface HoldAnswer extends AppliedUpdate {
  hold: Hold;
}

export interface CaptureAnswer extends HoldAnswer {
  /** With `to`: the id of the transfer, and what the receiver got. */
  transferId?: string | undefined;
  to?: TransferLeg | undefined;
}

export interface AccountsPage {
  /** In order of id, by bytes. */
  accounts: Account[];
  /** Ask for the next page with it; null where there is none. */
  nextCursor: string | null;
}

/** What an account was worth at one version of it. */
export interface PastBalance {
  accountId: string;
  /** Of the last change up to then; null before its opening. */
  version: number | null;
  balance: number;
  held: number;
  /** When that change was accepted; null before the opening. */
  createdAt: string | null;
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

/** What event and entry show of a change. Amounts are minor units; what does not apply is absent. */
export interface ChangeBody {
  version: number;
  /** When the database began to speak for itself: in another history of the account the same version has another epoch. */
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
  /** Name of the client whose API key signed the request; absent where the API asks for none. */
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
  /** Of its newest entry; below `version` while events are on their way, null while it has none. */
  ledgerVersion: number | null;
  /** Newest first. With filters a page may hold few or none, and others follow. */
  entries: Entry[];
  /** Ask for the next page with it; null where there is none. */
  nextCursor: string | null;
}

/** One thing that is wrong with a request. */
export interface InvalidInput {
  /** JSON pointer into the body, or `header X`, `path X`, `query X`. */
  where: string;
  what: string;
}

/** Members of a problem document beside the standard ones. */
export interface ProblemDetails {
  /** One sentence about this case: what to change. */
  detail?: string;
  errors?: InvalidInput[];
  accountId?: string;
  balance?: number;
  version?: number;
  /** As it is now, where the refusal is about it. */
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
