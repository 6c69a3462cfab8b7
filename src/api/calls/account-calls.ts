// The calls under /v1/accounts that create, list, read and change accounts. Each can be retried safely.
import { z } from 'zod';
import { accountId, accountStatus, asset, maxBalance, overdraftLimit } from '../../shared/balance.ts';
import { actorOf } from '../access/access.ts';
import { check, inQuery, traceparentOf } from '../http/input.ts';
import { sendJson } from '../http/json-answer.ts';
import { RequestProblem } from '../http/problems.ts';
import { accountPath, found, idOf, inDatabase, pageLimit } from './account-request.ts';
import { type ChangeRefusal, changeAccount, findAccount, listAccounts, openAccount } from './account-store.ts';
import * as answers from './answers.ts';
import type { Call } from './call.ts';

export const createAccountBody = z.strictObject({
  id: accountId,
  asset: asset.default('UNIT'),
  overdraftLimit: overdraftLimit.default(0),
  maxBalance: maxBalance.nullable().default(null),
});

export const changeAccountBody = z
  .strictObject({
    overdraftLimit: overdraftLimit.optional(),
    maxBalance: maxBalance.nullable().optional(),
    status: accountStatus.optional(),
  })
  .refine((change) => Object.keys(change).length > 0, 'needs at least one of overdraftLimit, maxBalance and status');

/** cursor is the nextCursor of the page before: the last id of it. */
const accountsQuery = z.strictObject({
  limit: pageLimit,
  cursor: accountId.optional(),
  prefix: z
    .string()
    .regex(/^[A-Za-z0-9._:-]{1,64}$/, 'must be 1 to 64 characters of A-Z a-z 0-9 . _ : -')
    .optional(),
});

const create: Call = {
  path: '/v1/accounts',
  method: 'post',
  id: 'createAccount',
  summary: 'Create an account',
  scope: 'admin',
  body: { schema: createAccountBody, example: { id: 'alice', asset: 'USD/2', overdraftLimit: 0 } },
  answers: {
    201: {
      description: 'This request made it.',
      schema: answers.account,
      headers: z.object({ Location: z.string().meta({ description: 'Path of the account.' }) }),
    },
    200: { description: 'It was there, with the same asset and limits.', schema: answers.account },
  },
  refusals: ['account_exists'],
  handler:
    ({ pool, readJsonBody, bodyBytesMax }) =>
    async (request, response) => {
      const wanted = check(createAccountBody, await readJsonBody(request, bodyBytesMax));
      const origin = { actor: actorOf(response), traceparent: traceparentOf(request) };
      const { account, opened } = await inDatabase(() => openAccount(pool, wanted, origin));
      for (const name of ['asset', 'overdraftLimit', 'maxBalance'] as const) {
        if (account[name] === wanted[name]) continue;
        const advice = name === 'asset' ? 'It cannot be changed' : 'Change it with PATCH /v1/accounts/{id}';
        throw new RequestProblem('account_exists', {
          detail: `Its ${name} is ${account[name] ?? 'not limited'}. ${advice}.`,
          accountId: account.id,
        });
      }
      if (opened) response.status(201).setHeader('location', `/v1/accounts/${encodeURIComponent(account.id)}`);
      sendJson(response, account);
    },
};

const list: Call = {
  path: '/v1/accounts',
  method: 'get',
  id: 'listAccounts',
  summary: 'List accounts, all or those whose id begins with a prefix',
  scope: 'read',
  query: accountsQuery,
  answers: { 200: { description: 'A page.', schema: answers.accountsPage } },
  refusals: [],
  handler:
    ({ pool }) =>
    async (request, response) => {
      const { limit, cursor = '', prefix = '' } = check(accountsQuery, request.query, inQuery);
      const accounts = await inDatabase(() => listAccounts(pool, cursor, prefix, limit));
      sendJson(response, { accounts, nextCursor: accounts.length === limit ? accounts.at(-1)?.id : null });
    },
};

const read: Call = {
  path: '/v1/accounts/:id',
  method: 'get',
  id: 'readAccount',
  summary: 'Read an account',
  scope: 'read',
  pathSchema: accountPath,
  answers: { 200: { description: 'Its present state.', schema: answers.account } },
  refusals: ['account_not_found'],
  handler:
    ({ pool }) =>
    async (request, response) => {
      const id = idOf(request);
      sendJson(response, found(id, await inDatabase(() => findAccount(pool, id))));
    },
};

const change: Call = {
  path: '/v1/accounts/:id',
  method: 'patch',
  id: 'changeAccount',
  summary: 'Change limits or status',
  description: 'A change raises the version by 1 and is published. One that changes nothing does neither.',
  scope: 'admin',
  pathSchema: accountPath,
  body: { schema: changeAccountBody, example: { overdraftLimit: 100 } },
  answers: { 200: { description: 'As it is now.', schema: answers.account } },
  refusals: ['account_not_found', 'account_closed', 'overdraft_limit_too_low', 'account_not_empty'],
  handler:
    ({ pool, readJsonBody, bodyBytesMax }) =>
    async (request, response) => {
      const body = await readJsonBody(request, bodyBytesMax);
      const id = idOf(request);
      const wanted = check(changeAccountBody, body);
      const origin = { actor: actorOf(response), traceparent: traceparentOf(request) };
      const result = await inDatabase(() => changeAccount(pool, id, wanted, origin));
      if (typeof result === 'string') throw new RequestProblem(result, { detail: ADVICE[result], accountId: id });
      sendJson(response, result);
    },
};

const ADVICE: Record<ChangeRefusal, string> = {
  overloaded: 'More of its holds have expired than one request writes. Repeat it.',
  account_not_found: 'Create it first: POST /v1/accounts.',
  account_closed: 'It stays closed: open another account.',
  overdraft_limit_too_low: 'Credit the account first, or set a higher limit.',
  account_not_empty: 'Bring its balance to 0 and close its holds first.',
};

export const accountCalls: readonly Call[] = [create, list, read, change];
