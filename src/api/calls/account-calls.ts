// /v1/accounts: create, list, read, change; the newest hash of one account, and the proof that its history holds together.
import type { RequestHandler } from 'express';
import type { PoolClient } from 'pg';
import { z } from 'zod';
import { accountId, overdraftLimit } from '../../shared/balance.ts';
import type { Pool } from '../../shared/database.ts';
import { verifyAccount } from '../../shared/verification.ts';
import { check, inQuery } from '../http/input.ts';
import { sendJson } from '../http/json-answer.ts';
import type { ReadJsonBody } from '../http/json-body.ts';
import { RequestProblem, sendProblem } from '../http/problems.ts';
import { found, idOf, inDatabase, pageLimit } from './account-request.ts';
import { changeAccount, createAccount, findAccount, findChainHead, listAccounts } from './account-store.ts';

export const createAccountBody = z.strictObject({ id: accountId, overdraftLimit: overdraftLimit.default(0) });

export const changeAccountBody = z
  .strictObject({ overdraftLimit: overdraftLimit.optional(), status: z.enum(['open', 'frozen']).optional() })
  .refine((change) => Object.keys(change).length > 0, 'needs overdraftLimit, status or both');

/** cursor is the nextCursor of the page before: the last id of it. */
export const accountsQuery = z.strictObject({
  limit: pageLimit,
  cursor: accountId.optional(),
  prefix: z
    .string()
    .regex(/^[A-Za-z0-9._:-]{1,64}$/, 'must be 1 to 64 characters of A-Z a-z 0-9 . _ : -')
    .optional(),
});

/** It takes about a second for so many, and a connection of the few that are for everything but updates: one at a time. */
export const VERIFIED_VERSIONS_MAX = 100_000;

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

  const list: RequestHandler = async (request, response) => {
    const { limit, cursor = '', prefix = '' } = check(accountsQuery, request.query, inQuery);
    const accounts = await inDatabase(() => listAccounts(pool, cursor, prefix, limit));
    sendJson(response, { accounts, nextCursor: accounts.length === limit ? accounts.at(-1)?.id : null });
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

  const chainHead: RequestHandler = async (request, response) => {
    const id = idOf(request);
    sendJson(response, found(id, await inDatabase(() => findChainHead(pool, id))));
  };

  let isVerifying = false;
  const verification: RequestHandler = async (request, response) => {
    const id = idOf(request);
    const { version } = found(id, await inDatabase(() => findAccount(pool, id)));
    if (version > VERIFIED_VERSIONS_MAX) {
      throw new RequestProblem('invalid_request', {
        detail: `An account is verified here up to version ${VERIFIED_VERSIONS_MAX}, and this one is at ${version}. Use npm run verify.`,
      });
    }
    if (isVerifying) return sendProblem(response, 'overloaded', { detail: 'Another account is being verified.' });
    isVerifying = true;
    try {
      const { problems, ...counts } = found(
        id,
        await inDatabase(() => withClient(pool, (client) => verifyAccount(client, id))),
      );
      sendJson(response, { accountId: id, verified: problems.length === 0, problems, ...counts });
    } finally {
      isVerifying = false;
    }
  };

  return { create, list, read, change, chainHead, verification };
}

/** A connection of the pool for several statements. One that failed in between is not used again. */
async function withClient<T>(pool: Pool, work: (client: PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  client.on('error', ignore);
  let isUsable = false;
  try {
    const result = await work(client);
    isUsable = true;
    return result;
  } finally {
    client.off('error', ignore);
    client.release(!isUsable);
  }
}

/** That the connection is lost is told by the statement under way; without a listener it would end the process as well. */
function ignore(): void {}
