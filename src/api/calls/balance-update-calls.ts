// POST /v1/balance-updates: one credit or debit, answered with the balance that it left; and /bulk: many, each standing
// alone, answered with one result each.
import { z } from 'zod';
import { accountId, amount, reference } from '../../shared/balance.ts';
import { eventId } from '../../shared/change.ts';
import { BULK_UPDATES_MAX, type ProblemDetails } from '../../shared/contract.ts';
import { actorOf } from '../access/access.ts';
import { check, idempotencyKey, idempotencyKeyOf, traceparentOf } from '../http/input.ts';
import { sendJson } from '../http/json-answer.ts';
import { problemDocument, sendProblem } from '../http/problems.ts';
import type { BalanceUpdate, UpdateResult } from '../updates/balance-update.ts';
import { fingerprintOf } from '../updates/fingerprint.ts';
import * as answers from './answers.ts';
import type { Call } from './call.ts';

export const balanceUpdateBody = z.strictObject({ accountId, amount, reference: reference.optional() });

export const bulkBody = z.strictObject({
  updates: z
    .array(balanceUpdateBody.extend({ idempotencyKey: idempotencyKey.optional() }))
    .min(1, `must hold 1 to ${BULK_UPDATES_MAX} updates`)
    .max(BULK_UPDATES_MAX, `must hold 1 to ${BULK_UPDATES_MAX} updates`),
});

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

const single: Call = {
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
    'account_closed',
    'account_frozen',
    'balance_out_of_range',
    'max_balance_exceeded',
    'insufficient_funds',
    'outcome_unknown',
  ],
  handler:
    ({ lanes, readJsonBody, bodyBytesMax }) =>
    async (request, response) => {
      const body = check(balanceUpdateBody, await readJsonBody(request, bodyBytesMax));
      const update = updateOf(body, idempotencyKeyOf(request), traceparentOf(request), actorOf(response));
      const result = await lanes.submit(update, 'single');
      if ('replayed' in result && result.replayed) response.setHeader('idempotent-replayed', 'true');
      if (result.outcome === 'applied') sendJson(response, applied(update, result));
      else sendProblem(response, result.outcome, describe(update, result));
    },
};

const bulk: Call = {
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
  handler:
    ({ lanes, readJsonBody, bulkBodyBytesMax, access }) =>
    async (request, response) => {
      const { updates } = check(bulkBody, await readJsonBody(request, bulkBodyBytesMax));
      await access.countMore(response, updates.length - 1);
      const traceparent = traceparentOf(request);
      const actor = actorOf(response);
      const results = await Promise.all(
        updates.map(async ({ idempotencyKey = null, ...body }) => {
          const update = updateOf(body, idempotencyKey, traceparent, actor);
          const result = await lanes.submit(update, 'bulk');
          const replayed = 'replayed' in result && result.replayed;
          if (result.outcome === 'applied') return { status: 200, replayed, ...applied(update, result) };
          return { ...problemDocument(result.outcome, describe(update, result)), replayed };
        }),
      );
      sendJson(response, { results });
    },
};

export const balanceUpdateCalls: readonly Call[] = [single, bulk];

function updateOf(
  { accountId, amount, reference }: z.infer<typeof balanceUpdateBody>,
  idempotencyKey: string | null,
  traceparent: string | null,
  actor: string | null,
): BalanceUpdate {
  const fingerprint =
    idempotencyKey === null ? null : fingerprintOf('balance-update', { accountId, amount, reference });
  return { accountId, amount, reference: reference ?? null, idempotencyKey, fingerprint, traceparent, actor };
}

function applied({ accountId, amount }: BalanceUpdate, { balance, version, epoch, createdAt }: AppliedResult) {
  return { accountId, amount, balance, version, eventId: eventId({ accountId, version, epoch }), createdAt };
}

type AppliedResult = Extract<UpdateResult, { balance: number }>;

/** The part of a refusal that is about this update. A replayed refusal reads like the first. */
function describe(update: BalanceUpdate, result: Exclude<UpdateResult, { outcome: 'applied' }>): ProblemDetails {
  const { accountId, amount } = update;
  switch (result.outcome) {
    case 'insufficient_funds':
    case 'max_balance_exceeded':
    case 'balance_out_of_range': {
      const { balance, version } = result;
      const detail = {
        insufficient_funds: `The balance is ${balance}: with the overdraft limit it does not cover a debit of ${-amount}.`,
        max_balance_exceeded: `The balance is ${balance}: with ${amount} it would be above the maxBalance of the account.`,
        balance_out_of_range: `The balance is ${balance}: with ${amount} it would leave the range.`,
      }[result.outcome];
      return { detail, accountId, balance, version };
    }
    case 'account_not_found':
      return { detail: 'Create it first: POST /v1/accounts.', accountId };
    case 'account_closed':
      return { detail: 'It stays closed: open another account.', accountId };
    case 'account_frozen':
      return { detail: 'It takes no updates until it is open again: PATCH /v1/accounts/{id}.', accountId };
    case 'idempotency_key_reused':
      return { detail: 'Its amount or reference was different. Use a new key for a new update.', accountId };
    case 'outcome_unknown':
      return {
        detail: update.idempotencyKey
          ? 'Send it again under the same Idempotency-Key: it takes effect at most once.'
          : 'A repeat may double it: compare the entries of the account first, and send an Idempotency-Key next time.',
        accountId,
      };
    case 'unavailable':
    case 'internal':
      return { detail: 'Nothing was changed.', accountId };
    default:
      return { accountId };
  }
}
