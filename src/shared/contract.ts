// What stands in HTTP bodies and in events, as plain types: the client is published with them, and who installs it does
// not get zod. The schemas that check requests and events are compared with them by the compiler (test/unit/contract.test.ts),
// the answers by tests that look at real ones.

/** Updates in one bulk request. */
export const BULK_UPDATES_MAX = 1000;

export interface Account {
  id: string;
  /** Minor units, from `-overdraftLimit` to 2^53 - 1. */
  balance: number;
  /** Number of accepted changes. */
  version: number;
  /** Minor units: how far below 0 the balance may go. */
  overdraftLimit: number;
  /** A frozen account takes no updates. */
  status: 'open' | 'frozen';
  /** UTC, `2026-11-23T19:43:56.550Z`, as all times here. */
  createdAt: string;
  /** The last change of balance, limit or status. */
  updatedAt: string;
}

export interface NewAccount {
  /** 1 to 64 characters of `A-Z a-z 0-9 . _ : -`, and not `.` or `..`. */
  id: string;
  /** Minor units; 0 when left out. */
  overdraftLimit?: number | undefined;
}

/** At least one of the two. */
export interface AccountChange {
  overdraftLimit?: number | undefined;
  status?: 'open' | 'frozen' | undefined;
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
  /** Number of this change: 1, 2, 3 … within its account, without a gap. */
  version: number;
  /** `<accountId>:<version>`, of its event and its ledger entry. */
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
  /** Of the last change up to then; 0 before the first one. */
  version: number;
  balance: number;
  /** When that change was accepted; null before the first one. */
  createdAt: string | null;
}

/** One change in the ledger. */
export interface Entry {
  eventId: string;
  version: number;
  amount: number;
  /** What this change left. */
  balance: number;
  createdAt: string;
  /** When it was written to the ledger. */
  recordedAt: string;
  reference?: string | undefined;
  /** Name of the client whose API key signed the request; absent where the API asks for none. */
  actor?: string | undefined;
}

export interface EntriesPage {
  accountId: string;
  /** Of the account: the number of changes that it has accepted. */
  version: number;
  /** Of its newest entry; below `version` while events are under way. */
  ledgerVersion: number;
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

/** An accepted change as subscribers get it: a CloudEvents 1.0 event. */
export interface BalanceEvent {
  specversion: '1.0';
  /** `<accountId>:<version>`: the same change always has the same id. */
  id: string;
  source: '/highload-balance';
  type: 'balance.credited' | 'balance.debited';
  /** The account. */
  subject: string;
  /** When the change was accepted. */
  time: string;
  datacontenttype: 'application/json';
  /** W3C trace context of the request, when it sent one. In a message with one event it is a header. */
  traceparent?: string | undefined;
  data: {
    accountId: string;
    version: number;
    amount: number;
    /** What this change left. */
    balance: number;
    reference?: string | undefined;
    actor?: string | undefined;
  };
}
