// The client of the HTTP API. Calls are repeated until there is an answer: updates under an idempotency key, the others
// because a repeat has no further effect. docs/client.md describes it for its users, docs/api.md the calls.
import type {
  Account,
  AccountChange,
  AccountsPage,
  BulkUpdate,
  EntriesPage,
  Entry,
  NewAccount,
  PastBalance,
} from '../shared/contract.ts';
import { BalanceError, invalidInput } from './balance-error.ts';
import { type Applied, type BulkResult, updateBalance, updateBalances } from './balance-updates.ts';
import { type Http, type HttpRequest, send } from './http.ts';
import { type CallOptions, persist } from './persist.ts';
import { createSlots } from './slots.ts';

export type {
  Account,
  AccountChange,
  AccountsPage,
  BulkUpdate,
  ChangeType,
  EntriesPage,
  Entry,
  InvalidInput,
  NewAccount,
  PastBalance,
} from '../shared/contract.ts';
export { BalanceError, type ErrorCode } from './balance-error.ts';
export type { Applied, BulkResult } from './balance-updates.ts';
export type { CallOptions } from './persist.ts';

export interface ClientOptions {
  /** Where the service is, `http://localhost:3000`; a path in it is kept. */
  url: string | URL;
  /** API key, sent as a bearer token; or what returns the present one, so that it can be changed while running. */
  token?: string | (() => string) | undefined;
  /** Longest time for a call with all its attempts, 1 to 3,600,000 ms. 30,000 unless given; a call can have its own. */
  deadlineMs?: number | undefined;
  /** Longest time for one attempt, 1 to 600,000 ms. 10,000 unless given. */
  attemptTimeoutMs?: number | undefined;
  /** Requests under way at once, and so connections, 1 to 10,000. 100 unless given. Further calls wait. */
  connectionsMax?: number | undefined;
}

export interface PageOptions {
  /** Entries or accounts of one page, 1 to 1,000; 100 unless given. */
  limit?: number | undefined;
  /** `nextCursor` of the page before; the first page unless given. */
  cursor?: string | undefined;
}

export interface EntryFilter {
  /** Entries created at or after it. */
  from?: Date | undefined;
  /** Entries created before it. */
  to?: Date | undefined;
  direction?: 'credit' | 'debit' | undefined;
  reference?: string | undefined;
}

/** A moment up to now, or a version up to the account's. */
export type PastMoment = { at: Date; version?: undefined } | { version: number; at?: undefined };

/** What fails, fails with a {@link BalanceError}, or a TypeError where an argument cannot even be sent. */
export interface Client {
  /** Creates the account, or returns it as it is when it was there with the same asset and limits. */
  createAccount(account: NewAccount, options?: CallOptions): Promise<Account>;
  /** The present state: every change that was answered is in it. */
  readAccount(id: string, options?: CallOptions): Promise<Account>;
  /** Changes limits or status. */
  changeAccount(id: string, change: AccountChange, options?: CallOptions): Promise<Account>;
  /**
   * Credits or debits. A refusal such as `insufficient_funds` is thrown: what was not paid never looks like success.
   * Under the update's `idempotencyKey`, or one of its own.
   */
  updateBalance(update: BulkUpdate, options?: CallOptions): Promise<Applied>;
  /**
   * 1 to 1,000 updates in one request, each standing alone, and each with a result of its own, in order. Refused and
   * unknown ones are results. Rejects only when no update can have taken effect.
   */
  updateBalances(updates: readonly BulkUpdate[], options?: CallOptions): Promise<BulkResult[]>;
  /** A page of accounts in order of id, of all or of those whose id begins with a prefix. */
  readAccounts(page?: PageOptions & { prefix?: string | undefined }, options?: CallOptions): Promise<AccountsPage>;
  /** What the account was worth after the last change up to a moment, or after a version. */
  readPastBalance(id: string, moment: PastMoment, options?: CallOptions): Promise<PastBalance>;
  /** A page of the ledger, newest first. With a filter it may hold few entries or none, and others follow. */
  readEntries(id: string, page?: PageOptions & EntryFilter, options?: CallOptions): Promise<EntriesPage>;
  /** The ledger of an account, newest first, page by page as it is read. The options hold for each page. */
  entries(id: string, options?: CallOptions, filter?: EntryFilter): AsyncGenerator<Entry, void, undefined>;
}

/** Opens no connection yet. @throws TypeError when an option is wrong. */
export function createClient(options: ClientOptions): Client {
  const http: Http = {
    baseUrl: baseUrlOf(options.url),
    token: tokenOf(options.token),
    slots: createSlots(whole('connectionsMax', options.connectionsMax ?? 100, 10_000)),
    attemptTimeoutMs: whole('attemptTimeoutMs', options.attemptTimeoutMs ?? 10_000, 600_000),
  };
  const deadlineMs = whole('deadlineMs', options.deadlineMs ?? 30_000, DEADLINE_MS_MAX);
  const deadlineOf = (call: CallOptions) => whole('deadlineMs', call.deadlineMs ?? deadlineMs, DEADLINE_MS_MAX);

  async function repeatable<Answer>(request: HttpRequest, call: CallOptions): Promise<Answer> {
    return (await persist(deadlineOf(call), call.signal, (over) => send<Answer>(http, request, over))).body;
  }

  async function readEntries(
    id: string,
    page: PageOptions & EntryFilter = {},
    call: CallOptions = {},
  ): Promise<EntriesPage> {
    const path = `${accountPath(id)}/entries?${queryOf({ ...page })}`;
    return repeatable({ method: 'GET', path, answerHas: 'entries' }, call);
  }

  return {
    createAccount: async (account, call = {}) =>
      repeatable({ method: 'POST', path: '/v1/accounts', body: JSON.stringify(account), answerHas: 'id' }, call),
    readAccount: async (id, call = {}) => repeatable({ method: 'GET', path: accountPath(id), answerHas: 'id' }, call),
    changeAccount: async (id, change, call = {}) =>
      repeatable({ method: 'PATCH', path: accountPath(id), body: JSON.stringify(change), answerHas: 'id' }, call),
    updateBalance: async (update, call = {}) => updateBalance(http, update, deadlineOf(call), call.signal),
    updateBalances: async (updates, call = {}) => updateBalances(http, updates, deadlineOf(call), call.signal),
    readAccounts: async (page = {}, call = {}) =>
      repeatable({ method: 'GET', path: `/v1/accounts?${queryOf({ ...page })}`, answerHas: 'accounts' }, call),
    readPastBalance: async (id, moment, call = {}) => {
      const path = `${accountPath(id)}/balance?${queryOf({ ...moment })}`;
      return repeatable({ method: 'GET', path, answerHas: 'balance' }, call);
    },
    readEntries,
    async *entries(id, call = {}, filter = {}) {
      for (let cursor: string | null | undefined; cursor !== null; ) {
        const page: EntriesPage = await readEntries(id, { ...filter, limit: PAGE_ENTRIES, cursor }, call);
        yield* page.entries;
        cursor = page.nextCursor;
      }
    },
  };
}

/** Below the time for which the service keeps idempotency keys, 24 hours unless its operator set less. */
const DEADLINE_MS_MAX = 3_600_000;
const PAGE_ENTRIES = 1000;

function baseUrlOf(given: string | URL): string {
  const url = URL.canParse(String(given)) ? new URL(given) : undefined;
  if (!url || !/^https?:$/.test(url.protocol) || url.search || url.hash || url.username || url.password) {
    throw new TypeError('url must be the http or https address of the service, such as http://localhost:3000');
  }
  return url.href.replace(/\/+$/, '');
}

/** Checked here: fetch would show a wrong one in its error. */
function tokenOf(given: ClientOptions['token']): (() => string) | undefined {
  if (given === undefined) return undefined;
  const present = typeof given === 'string' ? () => given : given;
  const checked = () => {
    const token = present();
    if (/^[\x21-\x7e]+$/.test(token)) return token;
    throw new TypeError('token must be printable ASCII without spaces');
  };
  if (typeof given === 'string') checked();
  return checked;
}

/** What is undefined is left out. @throws TypeError at an invalid Date. */
function queryOf(parameters: Record<string, string | number | Date | undefined>): URLSearchParams {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value instanceof Date && Number.isNaN(value.getTime())) throw new TypeError(`${name} must be a valid Date`);
    if (value !== undefined) query.set(name, value instanceof Date ? value.toISOString() : String(value));
  }
  return query;
}

/** Also where encoding leaves it: URLs resolve dots away, and an empty id names another path. */
function accountPath(id: string): string {
  if (/^\.{0,2}$/.test(id)) throw invalidInput('path id', 'must be an account id');
  return `/v1/accounts/${encodeURIComponent(id)}`;
}

function whole(name: string, value: number, max: number): number {
  if (Number.isInteger(value) && value >= 1 && value <= max) return value;
  throw new TypeError(`${name} must be a whole number from 1 to ${max}`);
}
