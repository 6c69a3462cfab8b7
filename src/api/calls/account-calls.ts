// The calls under /v1/accounts that create, list, read and change accounts. Each can be retried safely.

import { accountId, accountStatus, asset, maxBalance, overdraftLimit, text } from '../../shared/balance.ts';
import { z } from '../../shared/zod.ts';
import { noteAdminCall } from '../access/access-log.ts';
import { boundOf, narrowed, requireInside } from '../access/account-bound.ts';
import { actorOf } from '../access/key-of.ts';
import { check, inQuery, traceparentOf } from '../http/input.ts';
import { sendJson } from '../http/json-answer.ts';
import { RequestProblem } from '../http/problems.ts';
import { accountPath, CURSOR, found, idOf, pageLimit } from './account-request.ts';
import {
  type Account,
  type ChangeRefusal,
  changeAccount,
  findAccount,
  listAccounts,
  openAccount,
} from './account-store.ts';
import * as schemas from './answers.ts';
import type { Call } from './call.ts';
import { traceHeader } from './operation-request.ts';

/**
 * A default in prose: generators treat a member with a schema default as always present, and
 * require it.
 */
const leftOut = (description: string) => ({
  description,
  override({ jsonSchema }: { jsonSchema: { default?: unknown } }) {
    delete jsonSchema.default;
  },
});

export const createAccountBody = z
  .strictObject({
    id: accountId.meta({ description: 'Chosen by you; cannot be changed.' }),
    asset: asset
      .default('UNIT')
      .meta(leftOut('The unit it counts, such as `USD/2`. Cannot be changed; `UNIT` when left out.')),
    overdraftLimit: overdraftLimit
      .default(0)
      .meta(leftOut('Minor units: how far below 0 the balance may go; 0 when left out.')),
    maxBalance: maxBalance
      .nullable()
      .default(null)
      .meta(leftOut('Minor units: the highest balance that a credit may leave. null, or left out: no limit.')),
  })
  .meta({ id: 'NewAccount' });

export const changeAccountBody = z
  .strictObject({
    overdraftLimit: overdraftLimit.optional(),
    maxBalance: maxBalance.nullable().optional(),
    status: accountStatus.optional(),
  })
  .refine((change) => Object.keys(change).length > 0, 'needs at least one of overdraftLimit, maxBalance and status')
  .meta({ id: 'AccountChange', description: 'At least one of them.', minProperties: 1 });

const accountsQuery = z.strictObject({
  limit: pageLimit,
  cursor: accountId.optional().meta({ description: CURSOR }),
  prefix: text(64, /^[A-Za-z0-9._:-]+$/, 'must be 1 to 64 characters of A-Z a-z 0-9 . _ : -')
    .optional()
    .meta({ description: 'Accounts whose id begins with it.' }),
});

const EXAMPLES = {
  alice: { id: 'alice', asset: 'USD/2', overdraftLimit: 100 },
  bob: { id: 'bob', asset: 'USD/2' },
};

const create: Call = {
  path: '/v1/accounts',
  method: 'post',
  id: 'createAccount',
  tag: 'Accounts',
  summary: 'Create an account',
  scope: 'admin',
  headers: traceHeader,
  body: { schema: createAccountBody, examples: EXAMPLES },
  answers: {
    201: {
      description: 'This request created it.',
      schema: schemas.account,
      headers: z.object({ Location: schemas.location('Path of the account.') }),
    },
    200: { description: 'It already existed, with the same asset and limits.', schema: schemas.account },
  },
  refusals: ['account_exists'],
  handler:
    ({ changes, answers, readJsonBody, bodyBytesMax }) =>
    async (request, response) => {
      const wanted = check(createAccountBody, await readJsonBody(request, bodyBytesMax));
      requireInside(boundOf(response), wanted.id);
      const { id: accountId, ...limits } = wanted;
      noteAdminCall(response, { accountId, wanted: limits });
      const origin = { actor: actorOf(response), traceparent: traceparentOf(request) };
      const { account, epoch, opened } = await changes.query(response, (pool) => openAccount(pool, wanted, origin));
      if (opened) answers.note(account.id, { version: account.version, epoch });
      const outcome = opened ? 'opened' : 'existed';
      noteAdminCall(response, { accountId, wanted: limits, outcome, limits: limitsOf(account) });
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
  tag: 'Accounts',
  summary: 'List accounts, all or those whose id begins with a prefix',
  description: 'A key that is bound to a prefix only lists its own accounts.',
  scope: 'read',
  query: accountsQuery,
  answers: { 200: { description: 'A page.', schema: schemas.accountsPage } },
  refusals: [],
  handler:
    ({ pages }) =>
    async (request, response) => {
      const { limit, cursor = '', prefix = '' } = check(accountsQuery, request.query, inQuery);
      const shown = narrowed(boundOf(response), prefix);
      const accounts = await pages.query(response, (pool) => listAccounts(pool, cursor, shown, limit));
      sendJson(response, { accounts, nextCursor: accounts.length === limit ? accounts.at(-1)?.id : null });
    },
};

const read: Call = {
  path: '/v1/accounts/:id',
  method: 'get',
  id: 'readAccount',
  tag: 'Accounts',
  summary: 'Read an account',
  scope: 'read',
  pathSchema: accountPath,
  answers: { 200: { description: 'Its current state.', schema: schemas.account } },
  refusals: ['account_not_found'],
  handler:
    ({ rows }) =>
    async (request, response) => {
      const id = idOf(request);
      sendJson(response, found(id, await rows.query(response, (pool) => findAccount(pool, id))));
    },
};

const change: Call = {
  path: '/v1/accounts/:id',
  method: 'patch',
  id: 'changeAccount',
  tag: 'Accounts',
  summary: 'Change limits or status',
  description: 'A change raises the version by 1 and is published. A request that changes nothing does neither.',
  scope: 'admin',
  pathSchema: accountPath,
  headers: traceHeader,
  body: { schema: changeAccountBody, examples: { limit: { overdraftLimit: 100, status: 'open' } } },
  answers: { 200: { description: 'As it is now.', schema: schemas.account } },
  refusals: ['account_not_found', 'account_closed', 'overdraft_limit_too_low', 'account_not_empty'],
  handler:
    ({ changes, answers, readJsonBody, bodyBytesMax }) =>
    async (request, response) => {
      const body = await readJsonBody(request, bodyBytesMax);
      const id = idOf(request);
      const wanted = check(changeAccountBody, body);
      noteAdminCall(response, { accountId: id, wanted });
      const origin = { actor: actorOf(response), traceparent: traceparentOf(request) };
      const result = await changes.query(response, (pool) => changeAccount(pool, id, wanted, origin));
      if (typeof result === 'string') throw new RequestProblem(result, { detail: ADVICE[result], accountId: id });
      const { account, epoch } = result;
      if (epoch !== undefined) answers.note(id, { version: account.version, epoch });
      const outcome = epoch === undefined ? 'unchanged' : 'changed';
      noteAdminCall(response, { accountId: id, wanted, outcome, limits: limitsOf(account) });
      sendJson(response, account);
    },
};

/** As the log shows them. */
function limitsOf({ overdraftLimit, maxBalance, status }: Account) {
  return { overdraftLimit, maxBalance, status };
}

const ADVICE: Record<ChangeRefusal, string> = {
  overloaded: 'Too many of its holds expired at once for one request. Retry it.',
  account_not_found: 'Create it first: POST /v1/accounts.',
  account_closed: 'A closed account cannot be reopened: open another account.',
  overdraft_limit_too_low: 'Credit the account first, or set a higher limit.',
  account_not_empty: 'Bring its balance to 0 and close its holds first.',
};

export const accountCalls: readonly Call[] = [create, list, read, change];
