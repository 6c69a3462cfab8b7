// Answers a request with a problem document of the error catalogue.
import type { ServerResponse } from 'node:http';
import type { ProblemDetails } from '../../shared/contract.ts';
import { type Problem, type ProblemCode, problems } from '../../shared/problems.ts';

/** Thrown by handlers for an expected refusal; the error middleware answers with it. */
export class RequestProblem extends Error {
  override name = 'RequestProblem';
  readonly code: ProblemCode;
  readonly details: ProblemDetails;

  constructor(code: ProblemCode, details: ProblemDetails = {}) {
    super(details.detail ?? problems[code].title);
    this.code = code;
    this.details = details;
  }
}

export function problemDocument(code: ProblemCode, details: ProblemDetails = {}) {
  const { status, title } = problems[code];
  return { type: `urn:highload-balance:problem:${code}`, title, status, code, ...details };
}

/** Answers the request; does nothing when it was answered or its connection is gone. */
export function sendProblem(response: ServerResponse, code: ProblemCode, details: ProblemDetails = {}): void {
  if (response.headersSent || response.destroyed) return;
  const problem: Problem = problems[code];
  const body = JSON.stringify(problemDocument(code, details));
  response.statusCode = problem.status;
  response.setHeader('content-type', 'application/problem+json');
  response.setHeader('content-length', Buffer.byteLength(body));
  if (problem.retryAfterS !== undefined) response.setHeader('retry-after', problem.retryAfterS);
  response.end(body);
}
