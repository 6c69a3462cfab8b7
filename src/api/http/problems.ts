// Answers a request with a problem document of the error catalogue.
import type { ServerResponse } from 'node:http';
import type { ProblemDetails } from '../../shared/contract.ts';
import { type Problem, type ProblemCode, problems } from '../../shared/problems.ts';

/** Thrown by handlers for an expected refusal; the error middleware answers with it. */
export class RequestProblem extends Error {
  override name = 'RequestProblem';
  readonly code: ProblemCode;
  readonly details: ProblemDetails;
  /** Headers of the answer, by name. */
  readonly headers: Readonly<Record<string, string>>;

  constructor(code: ProblemCode, details: ProblemDetails = {}, headers: Readonly<Record<string, string>> = {}) {
    // Without a stack: nobody reads it, and under overload it would be a part of what a refusal
    // costs.
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    super(details.detail ?? problems[code].title);
    Error.stackTraceLimit = stackTraceLimit;
    this.code = code;
    this.details = details;
    this.headers = headers;
  }
}

/** A body can hold thousands of mistakes; these are enough to fix them. */
export const ERRORS_MAX = 20;
/** The name of a mistake may come from the request, so it may be of any length. */
export const WHERE_CHARACTERS_MAX = 200;
export const WHAT_CHARACTERS_MAX = 500;
/** The longest `detail`. */
export const DETAIL_CHARACTERS_MAX = 1000;

export function problemDocument(code: ProblemCode, details: ProblemDetails = {}) {
  const { status, title } = problems[code];
  const document = { type: `urn:highload-balance:problem:${code}`, title, status, code, ...details };
  if (details.errors === undefined) return document;
  const errors = details.errors.slice(0, ERRORS_MAX).map(({ where, what }) => ({
    where: line(where, WHERE_CHARACTERS_MAX),
    what: line(what, WHAT_CHARACTERS_MAX),
  }));
  return { ...document, errors };
}

/** One line for people: control characters are removed and long text is cut. */
export function line(text: string, charactersMax: number): string {
  const cut = text.length > charactersMax ? `${text.slice(0, charactersMax - 1)}…` : text;
  return cut.replace(/\p{Cc}/gu, ' ').toWellFormed();
}

/** A property, because it is read for every answer and has to cost nothing. */
type Answered = ServerResponse & { problemCode?: ProblemCode };

/**
 * The code a request was refused with, even if its client did not wait for the answer; undefined if
 * it was not refused.
 */
export function problemCodeOf(response: ServerResponse): ProblemCode | undefined {
  return (response as Answered).problemCode;
}

/** Answers the request; does nothing when it was answered or its connection is gone. */
export function sendProblem(response: ServerResponse, code: ProblemCode, details: ProblemDetails = {}): void {
  (response as Answered).problemCode = code;
  if (response.headersSent || response.destroyed) return;
  const problem: Problem = problems[code];
  const body = JSON.stringify(problemDocument(code, details));
  response.statusCode = problem.status;
  response.setHeader('content-type', 'application/problem+json');
  response.setHeader('content-length', Buffer.byteLength(body));
  if (problem.retryAfterS !== undefined) response.setHeader('retry-after', problem.retryAfterS);
  response.end(body);
}
