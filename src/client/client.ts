// The client of the HTTP API. Calls are repeated until there is an answer: those that move money under an idempotency
// key, the others because a repeat has no further effect. docs/client.md describes it for its users, docs/api.md the
// calls.
import { randomUUID } from 'node:crypto';
import type {
  Account,
  AccountChange,
  AccountsPage,
  AppliedUpdate,
  BulkTransfer,
  BulkUpdate,
  CaptureAnswer,
  ChangeType,
  EntriesPage,
  Entry,
  Hold,
  HoldAnswer,
  HoldCapture,
  HoldChange,
  HoldRelease,
  HoldsPage,
  NewAccount,
  NewHold,
  NewReversal,
  NewTransfer,
  PastBalance,
  PastTransfer,
  Reversal,
  Transfer,
} from '../shared/contract.ts';
import { type AtomicUpdate, sendAtomically } from './atomic.ts';
import { invalidInput } from './balance-error.ts';
import { type Http, type HttpRequest, send } from './http.ts';
import { type Applied, type BulkPart, type BulkRequest, type BulkResult, sendBulkOnce, sendOnce } from './once.ts';
import { type CallOptions, type KeyedCallOptions, persist } from './persist.ts';
import { createSlots } from './slots.ts';

export type {
  Account,
  AccountChange,
  AccountsPage,
  AppliedUpdate,
  BulkTransfer,
  BulkUpdate,
  CaptureAnswer,
  ChangeType,
  EntriesPage,
  Entry,
  Hold,
  HoldAnswer,
  HoldCapture,
  HoldChange,
  HoldRelease,
  HoldsPage,
  InvalidInput,
  NewAccount,
  NewHold,
  NewReversal,
  NewTransfer,
  PastBalance,
  PastTransfer,
  Reversal,
  Transfer,
  TransferLeg,
} from '../shared/contract.ts';
export type { AtomicUpdate } from './atomic.ts';
export { BalanceError, type ErrorCode } from './balance-error.ts';
export type { Applied, BulkResult } from './once.ts';
export type { CallOptions, KeyedCallOptions } from './persist.ts';

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
  /** Entries, accounts or holds of one page, 1 to 1,000; 100 unless given. */
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
  type?: ChangeType | undefined;
  /** Entries with exactly this one; found by index, as those of a transfer or a hold are. */
  reference?: string | undefined;
  transferId?: string | undefined;
  holdId?: string | undefined;
}

/** All updates of a call take effect or none, under one key: of the caller, or one of its own. */
export interface AtomicCallOptions extends KeyedCallOptions {
  atomic: true;
}

export interface HoldFilter {
  status?: Hold['status'] | undefined;
}

/** What can be reversed: a change or a transfer, by its answer or by its id. A capture with `to` is a transfer. */
export type Reversible = string | AppliedUpdate | Transfer | CaptureAnswer;

/** A moment up to now, or a version up to the account's. */
export type PastMoment = { at: Date; version?: undefined } | { version: number; at?: undefined };

/**
 * What fails, fails with a {@link BalanceError}, or a TypeError where an argument cannot even be sent. Amounts are
 * whole minor units. Calls that move money resolve only when they took effect.
 */
export interface Client {
  /** Creates the account, or returns it as it is when it was there with the same asset and limits. */
  createAccount(account: NewAccount, options?: CallOptions): Promise<Account>;
  /** The present state: every change that was answered is in it. */
  readAccount(id: string, options?: CallOptions): Promise<Account>;
  /** Changes limits or status. */
  changeAccount(id: string, change: AccountChange, options?: CallOptions): Promise<Account>;
  /**
   * Credits or debits. A refusal such as `insufficient_funds` is thrown: what was not paid never looks like success.
   * Under the update's `idempotencyKey`, or one of its own. With `expectedVersion` it is declined as `version_mismatch`
   * when the account has changed; a debit with `upTo` takes what is available, and the answer's `amount` says how much.
   */
  updateBalance(update: BulkUpdate, options?: CallOptions): Promise<Applied>;
  /**
   * 1 to 1,000 updates in one request, each standing alone, and each with a result of its own, in order. Refused and
   * unknown ones are results. Rejects only when no update can have taken effect.
   */
  updateBalances(updates: readonly BulkUpdate[], options?: CallOptions): Promise<BulkResult[]>;
  /**
   * With `atomic` all of 1 to 1,000 updates take effect or none, under the key of the call; an account may be in them
   * several times. Then each result is `ok`, or none is: the one that failed says why, the others are `linked_failed`.
   * Where the outcome is unknown, all are `outcome_unknown` with that key.
   */
  updateBalances(updates: readonly AtomicUpdate[], options: AtomicCallOptions): Promise<BulkResult[]>;
  /**
   * Moves money between accounts of one asset, all legs or none. Refused as an update is, or as `asset_mismatch`; the
   * error's `accountId` is the account that it is about.
   */
  transfer(transfer: NewTransfer, options?: KeyedCallOptions): Promise<Applied<Transfer>>;
  /** 1 to 1,000 transfers in one request, with 2,000 legs in all at most; else as {@link Client.updateBalances}. */
  transfers(transfers: readonly BulkTransfer[], options?: CallOptions): Promise<BulkResult<Transfer>[]>;
  /** A transfer as it took effect, with its notes; `transfer_not_found` where there is none. */
  readTransfer(transferId: string, options?: CallOptions): Promise<PastTransfer>;
  /**
   * Takes a change or a transfer back: `amount` of it, or as much as is left; a transfer of more than two legs as a
   * whole. `not_reversible`: it moved nothing, is a reversal itself, or is one leg of a transfer. `already_reversed`,
   * `reversal_exceeds`: nothing is left, or less than this. `insufficient_funds`: who got it has spent it.
   */
  reverse(of: Reversible, reversal?: Omit<NewReversal, 'of'>, options?: KeyedCallOptions): Promise<Applied<Reversal>>;
  /**
   * Sets money aside, or returns the hold as it is now when the same request placed it before: its id is its key.
   * `insufficient_funds`: less is available. `hold_exists`: the id was used for another hold.
   */
  hold(accountId: string, hold: NewHold, options?: CallOptions): Promise<Hold>;
  /** A hold as it is now, one that is due as active for a moment still; `hold_not_found` where there is none. */
  readHold(accountId: string, holdId: string, options?: CallOptions): Promise<Hold>;
  /** A page of the holds of an account in order of id, of all or of those with one status. */
  readHolds(accountId: string, page?: PageOptions & HoldFilter, options?: CallOptions): Promise<HoldsPage>;
  /** The holds of an account in order of id, page by page as they are read. The options hold for each page. */
  holds(accountId: string, options?: CallOptions, filter?: HoldFilter): AsyncGenerator<Hold, void, undefined>;
  /**
   * Debits what is held: `amount` of it, or all that is left. What is left after it is released, unless `final` is
   * false. With `to` another account gets it. `hold_closed`, `hold_expired`: nothing is left, and the error's `hold` is
   * the hold as it is. `hold_amount_exceeded`: less is left than this.
   */
  capture(
    accountId: string,
    holdId: string,
    capture?: HoldCapture,
    options?: KeyedCallOptions,
  ): Promise<Applied<CaptureAnswer>>;
  /** Frees what is held: `amount` of it, or all that is left. Fails as {@link Client.capture} does. */
  release(
    accountId: string,
    holdId: string,
    release?: HoldRelease,
    options?: KeyedCallOptions,
  ): Promise<Applied<HoldAnswer>>;
  /**
   * Changes how much is held, or until when. `amount` is the new total, with what was captured and released of it; more
   * than is available is `insufficient_funds`. Else it fails as {@link Client.capture} does.
   */
  changeHold(
    accountId: string,
    holdId: string,
    change: HoldChange,
    options?: KeyedCallOptions,
  ): Promise<Applied<HoldAnswer>>;
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

  async function once<Answer>(request: HttpRequest, call: CallOptions, accountId?: string) {
    return sendOnce<Answer>(http, request, accountId, deadlineOf(call), call.signal);
  }

  /** Under the key of the call, or one of its own. */
  async function keyed<Answer>(
    request: HttpRequest,
    { idempotencyKey = randomUUID(), ...call }: KeyedCallOptions,
    accountId?: string,
  ): Promise<Applied<Answer>> {
    const { body, replayed } = await once<Answer>({ ...request, idempotencyKey }, call, accountId);
    return { ...body, idempotencyKey, replayed };
  }

  async function bulk<Answer>(request: BulkRequest, parts: readonly BulkPart[], call: CallOptions) {
    return sendBulkOnce<Answer>(http, request, parts, deadlineOf(call), call.signal);
  }

  async function readEntries(
    id: string,
    page: PageOptions & EntryFilter = {},
    call: CallOptions = {},
  ): Promise<EntriesPage> {
    const path = `${accountPath(id)}/entries?${queryOf({ ...page })}`;
    return repeatable({ method: 'GET', path, answerHas: 'entries' }, call);
  }

  async function readHolds(
    accountId: string,
    page: PageOptions & HoldFilter = {},
    call: CallOptions = {},
  ): Promise<HoldsPage> {
    const path = `${accountPath(accountId)}/holds?${queryOf({ ...page })}`;
    return repeatable({ method: 'GET', path, answerHas: 'holds' }, call);
  }

  return {
    createAccount: async (account, call = {}) => repeatable(post('/v1/accounts', account, 'id'), call),
    readAccount: async (id, call = {}) => repeatable({ method: 'GET', path: accountPath(id), answerHas: 'id' }, call),
    changeAccount: async (id, change, call = {}) =>
      repeatable({ ...post(accountPath(id), change, 'id'), method: 'PATCH' }, call),
    updateBalance: async ({ idempotencyKey, ...update }, call = {}) =>
      keyed(post('/v1/balance-updates', update, 'eventId'), { ...call, idempotencyKey }, update.accountId),
    updateBalances: async (
      updates: readonly BulkUpdate[],
      { atomic, idempotencyKey, ...call }: Partial<AtomicCallOptions> = {},
    ) =>
      atomic
        ? sendAtomically(http, updates, idempotencyKey ?? randomUUID(), deadlineOf(call), call.signal)
        : bulk({ path: '/v1/balance-updates/bulk', parts: 'updates', resultHas: 'eventId' }, updates, call),
    transfer: async (transfer, call = {}) => keyed(post('/v1/transfers', transfer, 'transferId'), call),
    transfers: async (transfers, call = {}) =>
      bulk({ path: '/v1/transfers/bulk', parts: 'transfers', resultHas: 'transferId' }, transfers, call),
    readTransfer: async (transferId, call = {}) => {
      const path = `/v1/transfers/${pathPart('id', 'a transferId', transferId)}`;
      return repeatable({ method: 'GET', path, answerHas: 'transferId' }, call);
    },
    reverse: async (of, reversal = {}, call = {}) =>
      keyed(post('/v1/reversals', { ...reversal, of: idOf(of) }, 'reverses'), call),
    hold: async (accountId, hold, call = {}) =>
      (await once<Hold>(post(`${accountPath(accountId)}/holds`, hold, 'holdId'), call, accountId)).body,
    readHold: async (accountId, holdId, call = {}) =>
      repeatable({ method: 'GET', path: holdPath(accountId, holdId), answerHas: 'holdId' }, call),
    readHolds,
    async *holds(accountId, call = {}, filter = {}) {
      const pages = pagesOf((page) => readHolds(accountId, { ...filter, ...page }, call));
      for await (const { holds } of pages) yield* holds;
    },
    capture: async (accountId, holdId, capture = {}, call = {}) =>
      keyed(post(`${holdPath(accountId, holdId)}/capture`, capture, 'hold'), call, accountId),
    release: async (accountId, holdId, release = {}, call = {}) =>
      keyed(post(`${holdPath(accountId, holdId)}/release`, release, 'hold'), call, accountId),
    changeHold: async (accountId, holdId, change, call = {}) =>
      keyed({ ...post(holdPath(accountId, holdId), change, 'hold'), method: 'PATCH' }, call, accountId),
    readAccounts: async (page = {}, call = {}) =>
      repeatable({ method: 'GET', path: `/v1/accounts?${queryOf({ ...page })}`, answerHas: 'accounts' }, call),
    readPastBalance: async (id, moment, call = {}) => {
      const path = `${accountPath(id)}/balance?${queryOf({ ...moment })}`;
      return repeatable({ method: 'GET', path, answerHas: 'balance' }, call);
    },
    readEntries,
    async *entries(id, call = {}, filter = {}) {
      const pages = pagesOf((page) => readEntries(id, { ...filter, ...page }, call));
      for await (const { entries } of pages) yield* entries;
    },
  };
}

/** Below the time for which the service keeps idempotency keys, 24 hours unless its operator set less. */
const DEADLINE_MS_MAX = 3_600_000;
const PAGE_MAX = 1000;

function post(path: string, body: object, answerHas: string): HttpRequest {
  return { method: 'POST', path, body: JSON.stringify(body), answerHas };
}

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

function accountPath(id: string): string {
  return `/v1/accounts/${pathPart('id', 'an account id', id)}`;
}

function holdPath(accountId: string, holdId: string): string {
  return `${accountPath(accountId)}/holds/${pathPart('holdId', 'a hold id', holdId)}`;
}

/** Encoded, but for what encoding leaves as it is: URLs resolve dots away, and an empty id names another path. */
function pathPart(name: string, what: string, id: string): string {
  if (/^\.{0,2}$/.test(id)) throw invalidInput(`path ${name}`, `must be ${what}`);
  return encodeURIComponent(id);
}

/** A transfer is reversed as a whole, so its id comes before that of a change. */
function idOf(of: Reversible): string | undefined {
  if (typeof of === 'string') return of;
  const { transferId, eventId }: { transferId?: string | undefined; eventId?: string } = of;
  return transferId ?? eventId;
}

/** Until there is no next one. */
async function* pagesOf<Page extends { nextCursor: string | null }>(read: (page: PageOptions) => Promise<Page>) {
  for (let cursor: string | null | undefined; cursor !== null; ) {
    const page: Page = await read({ limit: PAGE_MAX, cursor });
    yield page;
    cursor = page.nextCursor;
  }
}

function whole(name: string, value: number, max: number): number {
  if (Number.isInteger(value) && value >= 1 && value <= max) return value;
  throw new TypeError(`${name} must be a whole number from 1 to ${max}`);
}
