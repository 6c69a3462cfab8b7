// /v1/accounts: create, read, change, and the history of one account and its newest hash.
import type { Request, RequestHandler } from 'express';
import { z } from 'zod';
import { accountId, overdraftLimit } from '../../shared/balance.ts';
import type { ProblemDetails } from '../../shared/contract.ts';
import type { Pool } from '../../shared/database.ts';
import { eventId } from '../../shared/events.ts';
import { changeAccount, createAccount, findAccount, findChainHead, listEntries } from './account-store.ts';
import { check, inPath, inQuery } from './input.ts';
import { sendJson } from './json-answer.ts';
import type { ReadJsonBody } from './json-body.ts';
import { RequestProblem } from './problems.ts';

const ENTRIES_MAX = 1000;
const ENTRIES_DEFAULT = 100;

export const createAccountBody = z.strictObject({ id: accountId, overdraftLimit: overdraftLimit.default(0) });

export const changeAccountBody = z
  .strictObject({ overdraftLimit: overdraftLimit.optional(), status: z.enum(['open', 'frozen']).optional() })
  .refine((change) => Object.keys(change).length > 0, 'needs overdraftLimit, status or both');

const accountPath = z.object({ id: accountId });

const wholeInQuery = (what: string, max: number) =>
  z
    .string(what)
    .regex(/^[1-9]\d{0,15}$/, what)
    .transform(Number)
    .refine((value) => value <= max, what);

/** cursor is the nextCursor of the page before. */
export const entriesQuery = z.strictObject({
  limit: wholeInQuery(`must be a number from 1 to ${ENTRIES_MAX}`, ENTRIES_MAX).default(ENTRIES_DEFAULT),
  cursor: wholeInQuery('must be the nextCursor of the page before', Number.MAX_SAFE_INTEGER).default(
    Number.MAX_SAFE_INTEGER,
  ),
});

export interface AccountRoutesOptions {
  pool: Pool;
  readJsonBody: ReadJsonBody;
  bodyBytesMax: number;
}

export function accountRoutes({ pool, readJsonBody, bodyBytesMax }: AccountRoutesOptions) {
  const create: RequestHandler = async (request, response) => {
    const wanted = check(createAccountBody, await readJsonBody(request, bodyBytesMax));
    const { account, created } = await inDatabase(() => createAccount(pool, wanted.id, wanted.overdraftLimit));
    if (account.overdraftLimit !== wanted.overdraftLimit) {
      throw new RequestProblem('account_exists', {
        detail: `Its overdraftLimit is ${account.overdraftLimit}. Change it with PATCH /v1/accounts/{id}.`,
        accountId: account.id,
      });
    }
    if (created) response.status(201).setHeader('location', `/v1/accounts/${encodeURIComponent(account.id)}`);
    sendJson(response, account);
  };

  const read: RequestHandler = async (request, response) => {
    const id = idOf(request);
    sendJson(response, found(id, await inDatabase(() => findAccount(pool, id))));
  };

  const change: RequestHandler = async (request, response) => {
    const body = await readJsonBody(request, bodyBytesMax);
    const id = idOf(request);
    const wanted = check(changeAccountBody, body);
    const result = await inDatabase(() => changeAccount(pool, id, wanted));
    if (result === 'overdraft_limit_too_low') {
      throw new RequestProblem(result, { detail: 'Credit the account first, or set a higher limit.', accountId: id });
    }
    sendJson(response, found(id, result === 'account_not_found' ? undefined : result));
  };

  const entries: RequestHandler = async (request, response) => {
    const id = idOf(request);
    const { limit, cursor } = check(entriesQuery, request.query, inQuery);
    const page = found(id, await inDatabase(() => listEntries(pool, id, cursor, limit)));
    const last = page.entries.at(-1);
    sendJson(response, {
      accountId: id,
      version: page.version,
      ledgerVersion: page.ledgerVersion,
      entries: page.entries.map(({ reference, actor, ...entry }) => ({
        eventId: eventId(id, entry.version),
        ...entry,
        ...(reference === null ? {} : { reference }),
        ...(actor === null ? {} : { actor }),
      })),
      // Versions start at 1: below that there is no further page.
      nextCursor: page.entries.length === limit && last && last.version > 1 ? String(last.version) : null,
    });
  };

  const chainHead: RequestHandler = async (request, response) => {
    const id = idOf(request);
    sendJson(response, found(id, await inDatabase(() => findChainHead(pool, id))));
  };

  return { create, read, change, entries, chainHead };
}

function idOf(request: Request): string {
  return check(accountPath, { id: request.params.id }, inPath).id;
}

function found<T>(id: string, value: T | undefined): T {
  if (value === undefined) throw new RequestProblem('account_not_found', { accountId: id });
  return value;
}

/** A database that does not answer is the caller's to wait for. All statements here can be repeated safely. */
async function inDatabase<T>(query: () => Promise<T>): Promise<T> {
  try {
    return await query();
  } catch (cause) {
    const code = (cause as { code?: string }).code ?? '';
    // A connection failure has no SQLSTATE, or one of these classes; anything else is a defect.
    const away = !/^[0-9A-Z]{5}$/.test(code) || /^(08|25|53|57)/.test(code);
    if (!away) throw cause;
    const details: ProblemDetails = { detail: 'Repeat the request: it takes effect once, however often it is sent.' };
    throw Object.assign(new RequestProblem('unavailable', details), { cause });
  }
}
