// What stands in HTTP bodies and in events, as plain types: the client is published with them, and who installs it does
// not get zod. The schemas that check requests and events are compared with them by the compiler (test/unit/contract.test.ts),
// the answers by tests that look at real ones.

/** Updates in one bulk request. */
export const BULK_UPDATES_MAX = 1000;

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
