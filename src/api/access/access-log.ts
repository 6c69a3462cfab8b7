// The access log: refusals, failed requests and administrative calls, one line each. Never logs a
// token, a body or a path as it was sent.
//
// Anyone can cause refusals, and a broken database makes every request fail. So these have a budget
// of lines, and what is left out is counted, so neither fills a disk. Clients without a key have a
// separate budget, so they cannot crowd out those with one. Each call that needs the scope admin is
// logged, once it may be made and is valid.
import type { Request, RequestHandler, Response } from 'express';
import { idOf } from '../../shared/api-key.ts';
import type { Running } from '../../shared/lifecycle.ts';
import type { Logger } from '../../shared/logging.ts';
import { type ProblemCode, problems } from '../../shared/problems.ts';
import { addressOf, forwardedForOf, requestIdIn } from '../http/caller.ts';
import { problemCodeOf, RequestProblem } from '../http/problems.ts';
import { bearerTokenOf } from './bearer-token.ts';
import { keyOf } from './key-of.ts';

/** The burst, and the rate per second: at most about 30 MB a day of each kind. */
const LINES_AT_ONCE = 100;
const LINES_PER_S = 1;
const SUMMARY_EVERY_MS = 10_000;
/** Kinds of refusals that a summary names, the most frequent first. */
const NAMED_MAX = 20;

const REFUSALS: ReadonlySet<ProblemCode> = new Set([
  'unauthorized',
  'forbidden',
  'misdirected',
  'cross_origin',
  'rate_limited',
]);
const FAILURES: ReadonlySet<ProblemCode> = new Set(['internal', 'outcome_unknown', 'unavailable']);

export interface AccessLog extends Running {
  /** Called at the end of every answer. */
  ended(request: Request, response: Response): void;
  /** The handler of a call that needs the scope admin: logs who called it, with what it notes by {@link noteAdminCall}. */
  ofAdmin(handler: RequestHandler): RequestHandler;
}

/** What an admin call is about, in checked values. */
export interface AdminCall {
  accountId: string;
  wanted: object;
  outcome?: 'opened' | 'existed' | 'changed' | 'unchanged';
  /** After it. */
  limits?: { overdraftLimit: number; maxBalance: number | null; status: string };
}

export function noteAdminCall(response: Response, call: AdminCall): void {
  response.locals.adminCall = call;
}

/** What a handler threw, for the line of its request. */
export function noteThrown(response: Response, thrown: unknown): void {
  response.locals.thrown = thrown;
}

export function startAccessLog(log: Logger): AccessLog {
  const budgets = { withoutKey: createBudget(), withKey: createBudget(), failures: createBudget() };
  const leftOut = createSummary(log);

  function adminCallEnded(request: Request, response: Response, refusal: ProblemCode | undefined): void {
    const call: AdminCall | undefined = response.locals.adminCall;
    if (!call && refusal) {
      // The request was invalid, so it is logged like any other refusal.
      if (REFUSALS.has(refusal)) return; // which has its line when it ends
      if (!budgets.withKey()) {
        leftOut.count(refusal, keyOf(response)?.actor);
        return;
      }
    }
    const status = refusal ? problems[refusal].status : response.statusCode;
    log.info({ ...callerOf(request, response), status, code: refusal, ...call }, 'admin call');
  }

  return {
    ended(request, response) {
      const code = problemCodeOf(response);
      if (code === undefined) return;
      const isFailure = FAILURES.has(code);
      if (!isFailure && !REFUSALS.has(code)) return;
      const key = keyOf(response);
      const budget = isFailure ? budgets.failures : key ? budgets.withKey : budgets.withoutKey;
      if (!budget()) return leftOut.count(code, key?.actor);
      const thrown: unknown = response.locals.thrown;
      const { accountId, err } =
        thrown instanceof RequestProblem
          ? { accountId: thrown.details.accountId, err: thrown.cause }
          : { accountId: undefined, err: thrown };
      const line = { ...callerOf(request, response), status: problems[code].status, code, accountId, err };
      if (isFailure) log.error(line, 'request failed');
      else log.warn(line, 'call refused');
    },
    ofAdmin: (handler) => async (request, response, next) => {
      let refusal: ProblemCode | undefined;
      try {
        await handler(request, response, next);
      } catch (error) {
        refusal = error instanceof RequestProblem ? error.code : 'internal';
        throw error;
      } finally {
        adminCallEnded(request, response, refusal);
      }
    },
    async stop() {
      leftOut.write();
    },
  };
}

/** Who called what. What is undefined is left out of the line. */
function callerOf(request: Request, response: Response) {
  const key = keyOf(response);
  return {
    requestId: requestIdIn(response),
    method: request.method,
    route: request.route?.path ?? 'none',
    // The id in an unknown token. Anyone may claim any id.
    keyId: key?.id ?? idOf(bearerTokenOf(request) ?? ''),
    actor: key?.actor,
    address: addressOf(request),
    forwardedFor: forwardedForOf(request),
  };
}

/** @returns whether a line may be written now. */
function createBudget(): () => boolean {
  let lines = LINES_AT_ONCE;
  let refilledAtMs = performance.now();
  return () => {
    const nowMs = performance.now();
    lines = Math.min(LINES_AT_ONCE, lines + ((nowMs - refilledAtMs) / 1000) * LINES_PER_S);
    refilledAtMs = nowMs;
    if (lines < 1) return false;
    lines -= 1;
    return true;
  };
}

/** Counts what got no line of its own, and periodically writes a summary. */
function createSummary(log: Logger): { count(code: ProblemCode, actor: string | undefined): void; write(): void } {
  // As many as there are codes and clients with keys.
  let counts = new Map<string, { code: ProblemCode; actor: string | undefined; count: number }>();
  let timer: NodeJS.Timeout | undefined;

  function write(): void {
    clearTimeout(timer);
    timer = undefined;
    if (counts.size === 0) return;
    const all = [...counts.values()].sort((one, other) => other.count - one.count);
    const leftOut = all.reduce((sum, { count }) => sum + count, 0);
    log.warn({ leftOut, most: all.slice(0, NAMED_MAX) }, 'calls were refused or failed without a line of their own');
    counts = new Map();
  }

  return {
    count(code, actor) {
      timer ??= setTimeout(write, SUMMARY_EVERY_MS).unref();
      const id = `${code} ${actor}`;
      const known = counts.get(id);
      if (known) known.count += 1;
      else counts.set(id, { code, actor, count: 1 });
    },
    write,
  };
}
