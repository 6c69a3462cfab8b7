// The bound of an API key: it covers the accounts whose id begins with its prefix, in every call,
// and learns nothing about any other. Any other account is `forbidden` before anything is looked
// up, whether or not it exists.
import type { Request, Response } from 'express';
import { accountId as accountIdForm } from '../../shared/balance.ts';
import type { ProblemDetails } from '../../shared/contract.ts';
import { RequestProblem } from '../http/problems.ts';
import { REALM } from './bearer-token.ts';
import { keyOf } from './key-of.ts';

/** The prefix of a bound key; null: it covers all accounts. */
export type Bound = string | null;

/** Of the key of a request; null with AUTH=off. */
export function boundOf(response: Response): Bound {
  return keyOf(response)?.accountPrefix ?? null;
}

export function isInside(bound: Bound, accountId: string): boolean {
  return bound === null || accountId.startsWith(bound);
}

/** @param accountId as the request names it. @throws RequestProblem forbidden unless the key governs it. */
export function requireInside(bound: Bound, accountId: string): void {
  if (!isInside(bound, accountId)) throw outside(bound, { accountId });
}

/**
 * For a change that the request names by its id: the answer does not name its accounts. @throws
 * RequestProblem forbidden unless the key covers all.
 */
export function requireAllInside(bound: Bound, legs: readonly { accountId: string }[]): void {
  if (!legs.every(({ accountId }) => isInside(bound, accountId))) throw outside(bound);
}

/**
 * Every id in a path begins with an account id. This is checked for every path that has one, so
 * that no call can forget it; ids of changes are looked at again when they are taken apart. @throws
 * RequestProblem forbidden
 */
export function requirePathInside(bound: string, { params, route }: Request): void {
  const { id } = params;
  if (id === undefined || (typeof id === 'string' && id.startsWith(bound))) return;
  const named = String(route.path).includes('/accounts/:id') ? accountIdForm.safeParse(id).data : undefined;
  throw outside(bound, named === undefined ? {} : { accountId: named });
}

/**
 * The prefix for a list: only the accounts of the key. @throws RequestProblem forbidden if none of
 * them can begin with `prefix`.
 */
export function narrowed(bound: Bound, prefix: string): string {
  if (bound === null || prefix.startsWith(bound)) return prefix;
  if (bound.startsWith(prefix)) return bound;
  throw outside(bound);
}

function outside(bound: Bound, named: ProblemDetails = {}): RequestProblem {
  const detail = `This API key is only valid for accounts whose id begins with ${bound}.`;
  const headers = { 'www-authenticate': `${REALM}, error="insufficient_scope"` };
  return new RequestProblem('forbidden', { detail, ...named }, headers);
}
