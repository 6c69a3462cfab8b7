// What the calls about accounts have in common: the id in the path, a missing account, an
// unavailable database.
import type { Request } from 'express';
import { accountId } from '../../shared/balance.ts';
import type { ProblemDetails } from '../../shared/contract.ts';
import { DatabaseError } from '../../shared/database.ts';
import { isUnavailable } from '../../shared/sqlstate.ts';
import { z } from '../../shared/zod.ts';
import { check, inPath } from '../http/input.ts';
import { RequestProblem } from '../http/problems.ts';
import { DamagedHistory } from './history-store.ts';

export const accountPath = z.object({ id: accountId.meta({ description: 'The account.', example: 'alice' }) });

export function idOf(request: Request): string {
  return check(accountPath, { id: request.params.id }, inPath).id;
}

export function found<T>(id: string, value: T | undefined): T {
  if (value === undefined) throw new RequestProblem('account_not_found', { accountId: id });
  return value;
}

/**
 * If the database does not answer, the client has to retry. Only for statements that are safe to
 * retry.
 */
export async function inDatabase<T>(query: () => Promise<T>): Promise<T> {
  try {
    return await query();
  } catch (cause) {
    if (cause instanceof RequestProblem || cause instanceof DamagedHistory) throw cause;
    if (cause instanceof DatabaseError && !isUnavailable(cause)) throw cause; // else the connection failed
    const details: ProblemDetails = { detail: 'Retry the request: it takes effect once, however often it is sent.' };
    throw Object.assign(new RequestProblem('unavailable', details), { cause });
  }
}

const digits = (what: string, max: number, min: 0 | 1) =>
  z
    .string(what)
    .regex(min === 0 ? /^(0|[1-9]\d{0,15})$/ : /^[1-9]\d{0,15}$/, what)
    .transform(Number)
    .refine((value) => value >= min && value <= max, what);

/** A whole number in a query, and documented as one. @param what the sentence that says what it must be. */
export const wholeInQuery = (what: string, max: number, min: 0 | 1 = 1) =>
  digits(what, max, min).meta({
    override({ jsonSchema }) {
      delete jsonSchema.pattern;
      Object.assign(jsonSchema, { type: 'integer', minimum: min, maximum: max });
    },
  });

/** Where a page ended, of what has a number. @param min the lowest. */
export const numberCursor = (min: 0 | 1 = 1) =>
  digits('must be the nextCursor of the page before', Number.MAX_SAFE_INTEGER, min)
    .meta({ maxLength: 16 })
    .optional()
    .meta({ description: CURSOR });
export const CURSOR = 'The `nextCursor` of the page before.';

/** Rows of one page. */
export const PAGE_ROWS_MAX = 1000;
const PAGE_ROWS = 100;
export const pageLimit = wholeInQuery(`must be a number from 1 to ${PAGE_ROWS_MAX}`, PAGE_ROWS_MAX)
  .default(PAGE_ROWS)
  .meta({ description: 'Rows of a page.', override: { default: PAGE_ROWS } });
