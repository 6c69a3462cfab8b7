// Every call of the API as the reference shows it: the schemas that its handler checks with, what it answers, and the
// refusals that it can give. What they mean stands with them in the catalogue and in docs/api.md.
import { z } from 'zod';
import type { Scope } from '../../shared/api-key.ts';
import type { ProblemCode } from '../../shared/problems.ts';
import { accountsQuery, changeAccountBody, createAccountBody } from '../calls/account-calls.ts';
import { accountPath } from '../calls/account-request.ts';
import * as answers from '../calls/answers.ts';
import { balanceUpdateBody, bulkBody } from '../calls/balance-update-calls.ts';
import { balanceQuery, entriesQuery, exportQuery } from '../calls/history-calls.ts';
import { idempotencyKey } from '../http/input.ts';

export interface Operation {
  path: string;
  method: 'get' | 'post' | 'patch';
  id: string;
  summary: string;
  description?: string;
  scope: Scope;
  pathSchema?: z.ZodObject;
  query?: z.ZodObject;
  headers?: z.ZodObject;
  body?: { schema: z.ZodType; example: object };
  /** Answers that are no refusals, by status. */
  answers: Record<number, { description: string; schema?: z.ZodType; types?: string[]; headers?: z.ZodObject }>;
  /** Beside those that any call can give. */
  refusals: readonly ProblemCode[];
}

const replay = z.object({
  'Idempotent-Replayed': z
    .literal('true')
    .optional()
    .meta({ description: 'The first answer to this key, given again; also on refusals.' }),
});

const keyHeader = z.object({
  'Idempotency-Key': idempotencyKey.optional().meta({
    description: 'Bare or as a quoted string. A repeat under it, on the same account, gets the first answer again.',
    example: 'order-1001',
  }),
  traceparent: z.string().optional().meta({ description: 'W3C trace context; it goes on with the event.' }),
});

export const operations: readonly Operation[] = [
  {
    path: '/v1/balance-updates',
    method: 'post',
    id: 'updateBalance',
    summary: 'Credit or debit an account',
    description: 'The answer holds the balance that this change left.',
    scope: 'write',
    headers: keyHeader,
    body: { schema: balanceUpdateBody, example: { accountId: 'alice', amount: 250, reference: 'order 1001' } },
    answers: { 200: { description: 'Applied.', schema: answers.appliedUpdate, headers: replay } },
    refusals: [
      'idempotency_key_reused',
      'account_not_found',
      'account_frozen',
      'balance_out_of_range',
      'insufficient_funds',
      'outcome_unknown',
    ],
  },
  {
    path: '/v1/balance-updates/bulk',
    method: 'post',
    id: 'updateBalances',
    summary: 'Up to 1,000 updates in one request, each standing alone',
    description: 'Partial success is normal: look at the `status` of each result.',
    scope: 'write',
    headers: keyHeader.omit({ 'Idempotency-Key': true }),
    body: {
      schema: bulkBody,
      example: { updates: [{ accountId: 'alice', amount: 250, idempotencyKey: 'order-1001' }] },
    },
    answers: { 200: { description: 'One result for each update, in order.', schema: answers.bulkAnswer } },
    refusals: [],
  },
  {
    path: '/v1/accounts',
    method: 'post',
    id: 'createAccount',
    summary: 'Create an account',
    scope: 'admin',
    body: { schema: createAccountBody, example: { id: 'alice', overdraftLimit: 0 } },
    answers: {
      201: {
        description: 'This request made it.',
        schema: answers.account,
        headers: z.object({ Location: z.string().meta({ description: 'Path of the account.' }) }),
      },
      200: { description: 'It was there, with the same limit.', schema: answers.account },
    },
    refusals: ['account_exists'],
  },
  {
    path: '/v1/accounts',
    method: 'get',
    id: 'listAccounts',
    summary: 'List accounts, all or those whose id begins with a prefix',
    scope: 'read',
    query: accountsQuery,
    answers: { 200: { description: 'A page.', schema: answers.accountsPage } },
    refusals: [],
  },
  {
    path: '/v1/accounts/{id}',
    method: 'get',
    id: 'readAccount',
    summary: 'Read an account',
    scope: 'read',
    pathSchema: accountPath,
    answers: { 200: { description: 'Its present state.', schema: answers.account } },
    refusals: ['account_not_found'],
  },
  {
    path: '/v1/accounts/{id}',
    method: 'patch',
    id: 'changeAccount',
    summary: 'Change overdraft limit or status',
    scope: 'admin',
    pathSchema: accountPath,
    body: { schema: changeAccountBody, example: { overdraftLimit: 100 } },
    answers: { 200: { description: 'As it is now.', schema: answers.account } },
    refusals: ['account_not_found', 'overdraft_limit_too_low'],
  },
  {
    path: '/v1/accounts/{id}/entries',
    method: 'get',
    id: 'readEntries',
    summary: 'Read the ledger, newest first',
    scope: 'read',
    pathSchema: accountPath,
    query: entriesQuery,
    answers: { 200: { description: 'A page.', schema: answers.entriesPage } },
    refusals: ['account_not_found'],
  },
  {
    path: '/v1/accounts/{id}/entries/export',
    method: 'get',
    id: 'exportEntries',
    summary: 'The ledger as a file, oldest first',
    scope: 'read',
    pathSchema: accountPath,
    query: exportQuery,
    answers: {
      200: {
        description: 'Streamed. A transfer that breaks off is not complete.',
        types: ['text/csv; charset=utf-8; header=present', 'application/jsonl'],
        headers: z.object({ 'Content-Disposition': z.string() }),
      },
    },
    refusals: ['account_not_found'],
  },
  {
    path: '/v1/accounts/{id}/balance',
    method: 'get',
    id: 'readPastBalance',
    summary: 'What an account was worth at a time or a version',
    scope: 'read',
    pathSchema: accountPath,
    query: balanceQuery,
    answers: { 200: { description: 'After the last change up to then.', schema: answers.pastBalance } },
    refusals: ['account_not_found'],
  },
  {
    path: '/v1/accounts/{id}/chain-head',
    method: 'get',
    id: 'readChainHead',
    summary: 'The newest hash of the ledger',
    description: 'Kept elsewhere, it shows later that no entry up to it was rewritten.',
    scope: 'read',
    pathSchema: accountPath,
    answers: { 200: { description: 'The head.', schema: answers.chainHead } },
    refusals: ['account_not_found'],
  },
  {
    path: '/v1/accounts/{id}/verification',
    method: 'get',
    id: 'verifyAccount',
    summary: 'Prove that the history of an account holds together',
    description:
      'Versions without a gap, amounts that add up to the balance, entries that are those that were hashed: in one snapshot, of ledger and outbox. For accounts of up to 100,000 changes; one at a time.',
    scope: 'read',
    pathSchema: accountPath,
    answers: { 200: { description: 'What was found.', schema: answers.accountVerification } },
    refusals: ['account_not_found'],
  },
];
