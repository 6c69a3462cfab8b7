// The one error of the client. Its `code` says what happened, and stays the same over releases.
import type { Hold, InvalidInput, ProblemDetails } from '../shared/contract.ts';
import type { ProblemCode } from '../shared/problems.ts';

/**
 * What the service answers (docs/api.md lists it), and what only the client can say:
 * - `outcome_unknown`: an update was sent, but its outcome is unknown. Retry it with the error's
 *   `idempotencyKey`; a hold, which has none, unchanged. Either the service reported it, or the
 *   client received no answer.
 * - `unreachable`: there was no answer, and a retry cannot apply anything twice.
 * - `unexpected_answer`: an answer that is not from this service, such as a gateway's page.
 * - `aborted`: by the call's signal; a retry cannot apply anything twice. `cause` is the signal's
 *   reason.
 * - `too_many_calls`: more calls wait in this client than it holds. Nothing was sent.
 */
export type ErrorCode = ProblemCode | 'unreachable' | 'unexpected_answer' | 'aborted' | 'too_many_calls';

/** A newer service may send codes that this release does not know: give a `switch` a default. */
export class BalanceError extends Error {
  override readonly name = 'BalanceError';
  readonly code: ErrorCode;
  /** HTTP status of the answer; undefined where there was none. */
  readonly status: number | undefined;
  /** The idempotency key that was sent: use it to retry. Undefined for calls without one. */
  readonly idempotencyKey: string | undefined;
  /** What is wrong with the request, and where. */
  readonly errors: readonly InvalidInput[] | undefined;
  readonly accountId: string | undefined;
  /** Minor units, of the account when it was declined: `insufficient_funds` has it, and what else a key remembers. */
  readonly balance: number | undefined;
  readonly version: number | undefined;
  /** The hold as it is, where it was captured, released or has expired: `hold_closed` and `hold_expired` have it. */
  readonly hold: Hold | undefined;

  constructor(code: ErrorCode, message: string, facts: ErrorFacts = {}) {
    super(message, 'cause' in facts ? { cause: facts.cause } : undefined);
    this.code = code;
    this.status = facts.status;
    this.idempotencyKey = facts.idempotencyKey;
    this.errors = facts.errors;
    this.accountId = facts.accountId;
    this.balance = facts.balance;
    this.version = facts.version;
    this.hold = facts.hold;
  }
}

export interface ErrorFacts {
  status?: number | undefined;
  idempotencyKey?: string | undefined;
  errors?: readonly InvalidInput[] | undefined;
  accountId?: string | undefined;
  balance?: number | undefined;
  version?: number | undefined;
  hold?: Hold | undefined;
  cause?: unknown;
}

export interface ProblemDocument extends ProblemDetails {
  type: string;
  title: string;
  status: number;
  code: ErrorCode;
}

export function isProblemDocument(body: unknown): body is ProblemDocument {
  const { type, code } = (body ?? {}) as Record<string, unknown>;
  return typeof code === 'string' && type === `urn:highload-balance:problem:${code}`;
}

export function errorOf(problem: ProblemDocument, idempotencyKey: string | undefined): BalanceError {
  const { code, title, detail, errors } = problem;
  const places = errors?.map(({ where, what }) => `${where} ${what}`).join('; ');
  return new BalanceError(code, [title, detail, places].filter(Boolean).join('. '), { ...problem, idempotencyKey });
}

/** Input that could not be sent to the service for checking. */
export function invalidInput(where: string, what: string): BalanceError {
  return new BalanceError('invalid_request', `${where} ${what}. Nothing was sent.`, { errors: [{ where, what }] });
}
