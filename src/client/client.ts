// The client of the HTTP API. Calls are retried until there is an answer: those that move money
// with an idempotency key, the others because a retry has no further effect. Methods, parameters
// and fields have the names that the OpenAPI document gives them. docs/client.md describes the
// client for its users, docs/api.md describes the calls.
import { type AccountMethods, accountMethods } from './account-methods.ts';
import { checkNames, type Names, whole } from './arguments.ts';
import { type HistoryMethods, historyMethods } from './history-methods.ts';
import { type HoldMethods, holdMethods } from './hold-methods.ts';
import { type MoneyMethods, moneyMethods } from './money-methods.ts';
import { DEADLINE_MS_MAX, Sender } from './sender.ts';
import { createSlots } from './slots.ts';

export type {
  Account,
  AccountChange,
  AccountsPage,
  AccountVerification,
  AppliedUpdate,
  BalanceUpdate,
  BulkTransfer,
  BulkUpdate,
  CaptureAnswer,
  ChainHead,
  ChainSegment,
  ChainSegmentsPage,
  ChangeBody,
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
export type { ProblemCode } from '../shared/problems.ts';
export type { AccountFilter, AccountMethods } from './account-methods.ts';
export type { AtomicUpdate } from './atomic.ts';
export { BalanceError, type ErrorCode, type ErrorFacts } from './balance-error.ts';
export type { CallOptions, KeyedCallOptions, TracedCallOptions } from './call-options.ts';
export type { ExportedEntries, ExportFormat } from './exported-entries.ts';
export type { EntriesExport, EntryFilter, HistoryMethods, PastMoment } from './history-methods.ts';
export type { HoldFilter, HoldMethods } from './hold-methods.ts';
export type { AtomicCallOptions, MoneyMethods, Reversible, SeparateCallOptions } from './money-methods.ts';
export type { Applied, BulkResult, Receipt } from './once.ts';
export type { PageOptions } from './pages.ts';

export interface ClientOptions {
  /** Where the service is, such as `http://localhost:3000`; a path in it is kept. */
  url: string | URL;
  /**
   * API key, sent as a bearer token; or a function that returns the current one, so that it can be
   * rotated while running.
   */
  token?: string | (() => string) | undefined;
  /**
   * Longest time for a call with all its attempts, 1 to 3,600,000 ms. 30,000 unless given; each
   * call can have its own.
   */
  deadlineMs?: number | undefined;
  /** Longest time for one attempt, 1 to 600,000 ms. 10,000 unless given. */
  attemptTimeoutMs?: number | undefined;
  /**
   * Requests in flight at once, and so connections, 1 to 10,000. 100 unless given. Further calls
   * wait.
   */
  connectionsMax?: number | undefined;
}

/**
 * Failures are a {@link BalanceError}, or a TypeError if an argument is unknown or cannot be sent.
 * Amounts are whole minor units. Calls that move money resolve only once they have taken effect.
 */
export interface Client extends AccountMethods, MoneyMethods, HoldMethods, HistoryMethods {}

const OPTIONS = {
  url: true,
  token: true,
  deadlineMs: true,
  attemptTimeoutMs: true,
  connectionsMax: true,
} as const satisfies Names<ClientOptions>;

/** Opens no connection yet. @throws TypeError when an option is wrong. */
export function createClient(options: ClientOptions): Client {
  checkNames('createClient', ['options', options, OPTIONS]);
  const http = {
    baseUrl: baseUrlOf(options.url),
    token: tokenOf(options.token),
    slots: createSlots(whole('connectionsMax', options.connectionsMax ?? 100, 10_000)),
    attemptTimeoutMs: whole('attemptTimeoutMs', options.attemptTimeoutMs ?? 10_000, 600_000),
  };
  const sender = new Sender(http, whole('deadlineMs', options.deadlineMs ?? 30_000, DEADLINE_MS_MAX));
  return { ...accountMethods(sender), ...moneyMethods(sender), ...holdMethods(sender), ...historyMethods(sender) };
}

function baseUrlOf(given: string | URL): string {
  const url = URL.canParse(String(given)) ? new URL(given) : undefined;
  if (!url || !/^https?:$/.test(url.protocol) || url.search || url.hash || url.username || url.password) {
    throw new TypeError('url must be the http or https address of the service, such as http://localhost:3000');
  }
  return url.href.replace(/\/+$/, '');
}

/** Checked here, because fetch would show an invalid token in its error. */
function tokenOf(given: ClientOptions['token']): (() => string) | undefined {
  if (given === undefined) return undefined;
  if (typeof given !== 'string' && typeof given !== 'function')
    throw new TypeError('token must be a string, or a function that returns it');
  const present = typeof given === 'string' ? () => given : given;
  const checked = () => {
    const token = present();
    if (typeof token === 'string' && /^[\x21-\x7e]+$/.test(token)) return token;
    if (token === '') throw new TypeError('token must not be empty: leave it out where the API wants no key');
    throw new TypeError('token must be printable ASCII without spaces');
  };
  if (typeof given === 'string') checked();
  return checked;
}
