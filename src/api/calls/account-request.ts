// What the calls about accounts have in common: the id in the path, an account that is not there, a database that is away.
import type { Request } from 'express';
import { z } from 'zod';
import { accountId } from '../../shared/balance.ts';
import type { ProblemDetails } from '../../shared/contract.ts';
import { check, inPath } from '../http/input.ts';
import { RequestProblem } from '../http/problems.ts';

export const accountPath = z.object({ id: accountId });

export function idOf(request: Request): string {
  return check(accountPath, { id: request.params.id }, inPath).id;
}

export function found<T>(id: string, value: T | undefined): T {
  if (value === undefined) throw new RequestProblem('account_not_found', { accountId: id });
  return value;
}

/** A database that does not answer is the caller's to wait for. Only for statements that can be repeated safely. */
export async function inDatabase<T>(query: () => Promise<T>): Promise<T> {
  try {
    return await query();
  } catch (cause) {
    if (cause instanceof RequestProblem) throw cause;
    const code = (cause as { code?: string }).code ?? '';
    // A connection failure has no SQLSTATE, or one of these classes; anything else is a defect. EPIPE is no SQLSTATE.
    const away = !/^([0-9][0-9A-Z]{4}|(F0|HV|P0|XX)[0-9A-Z]{3})$/.test(code) || /^(08|25|53|57)/.test(code);
    if (!away) throw cause;
    const details: ProblemDetails = { detail: 'Repeat the request: it takes effect once, however often it is sent.' };
    throw Object.assign(new RequestProblem('unavailable', details), { cause });
  }
}

/** A whole number in a query. @param what the sentence that says what it must be. */
export const wholeInQuery = (what: string, max: number, min: 0 | 1 = 1) =>
  z
    .string(what)
    .regex(/^(0|[1-9]\d{0,15})$/, what)
    .transform(Number)
    .refine((value) => value >= min && value <= max, what);

/** Rows of one page. */
export const PAGE_ROWS_MAX = 1000;
export const pageLimit = wholeInQuery(`must be a number from 1 to ${PAGE_ROWS_MAX}`, PAGE_ROWS_MAX).default(100);
