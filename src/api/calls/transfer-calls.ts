// /v1/transfers: money between accounts, all legs or none; /bulk: many transfers, each standing alone; and what became of one.
import { z } from 'zod';
import { AMOUNT_MAX, accountId, amount, positiveAmount } from '../../shared/balance.ts';
import { BULK_UPDATES_MAX, LEGS_MAX, TRANSFER_LEGS_MAX } from '../../shared/contract.ts';
import { check, idempotencyKey, inPath } from '../http/input.ts';
import { sendJson } from '../http/json-answer.ts';
import { RequestProblem } from '../http/problems.ts';
import type { Operation } from '../updates/operation.ts';
import { inDatabase } from './account-request.ts';
import * as answers from './answers.ts';
import type { Call } from './call.ts';
import { resultOf, transferAnswer } from './operation-answer.ts';
import {
  answerWith,
  keyHeader,
  legOf,
  notes,
  operationOf,
  replayHeader,
  type Sender,
  senderOf,
  traceHeader,
} from './operation-request.ts';
import { findTransfer, parseEventId } from './transfer-store.ts';

const SHAPE = 'needs either from, to and amount, or legs';
const LEGS = `must hold 2 to ${TRANSFER_LEGS_MAX} legs`;

/** From one account to another, or the general form of it. */
const transfer = z.strictObject({
  from: accountId.optional(),
  to: accountId.optional(),
  amount: positiveAmount.optional(),
  legs: z.array(z.strictObject({ accountId, amount })).min(2, LEGS).max(TRANSFER_LEGS_MAX, LEGS).optional(),
  ...notes,
});

function checkTransfer({ from, to, amount, legs }: z.infer<typeof transfer>, context: z.RefinementCtx): void {
  const isPair = from !== undefined && to !== undefined && amount !== undefined;
  const isPart = from !== undefined || to !== undefined || amount !== undefined;
  if (legs === undefined ? !isPair : isPart) {
    context.addIssue(SHAPE);
    return;
  }
  if (legs === undefined) {
    if (from === to) context.addIssue({ code: 'custom', path: ['to'], message: 'must be another account than from' });
    return;
  }
  if (new Set(legs.map((leg) => leg.accountId)).size < legs.length) {
    context.addIssue({ code: 'custom', path: ['legs'], message: 'must name each account once' });
  }
  const sum = legs.reduce((total, leg) => total + BigInt(leg.amount), 0n);
  if (sum !== 0n) context.addIssue({ code: 'custom', path: ['legs'], message: `must add up to 0, not to ${sum}` });
  const debits = legs.reduce((total, leg) => total - BigInt(Math.min(0, leg.amount)), 0n);
  if (debits > BigInt(AMOUNT_MAX)) {
    context.addIssue({ code: 'custom', path: ['legs'], message: `must move ${AMOUNT_MAX} in all at most` });
  }
}

export const transferBody = transfer.superRefine(checkTransfer);
export const bulkTransfersBody = z
  .strictObject({
    transfers: z
      .array(transfer.extend({ idempotencyKey: idempotencyKey.optional() }).superRefine(checkTransfer))
      .min(1, `must hold 1 to ${BULK_UPDATES_MAX} transfers`)
      .max(BULK_UPDATES_MAX, `must hold 1 to ${BULK_UPDATES_MAX} transfers`),
  })
  .refine(({ transfers }) => legsIn(transfers) <= LEGS_MAX, {
    path: ['transfers'],
    message: `must have ${LEGS_MAX} legs in all at most: send several requests`,
  });

const legsIn = (transfers: readonly { legs?: unknown[] | undefined }[]) =>
  transfers.reduce((sum, { legs }) => sum + (legs?.length ?? 2), 0);

const refusals = [
  ...(['idempotency_key_reused', 'account_not_found', 'account_closed', 'account_frozen', 'asset_mismatch'] as const),
  ...(['balance_out_of_range', 'max_balance_exceeded', 'insufficient_funds', 'outcome_unknown'] as const),
];
const EXAMPLE = { from: 'alice', to: 'bob', amount: 250, reference: 'order 1001' };

const create: Call = {
  path: '/v1/transfers',
  method: 'post',
  id: 'transfer',
  summary: 'Move money between accounts',
  description: 'All legs take effect, or none. A refusal names the account that it is about.',
  scope: 'write',
  headers: keyHeader,
  body: { schema: transferBody, example: EXAMPLE },
  answers: { 200: { description: 'Applied.', schema: answers.transfer, headers: replayHeader } },
  refusals,
  handler:
    ({ lanes, readJsonBody, bodyBytesMax }) =>
    async (request, response) => {
      const body = check(transferBody, await readJsonBody(request, bodyBytesMax));
      const operation = transferOf(body, senderOf(request, response));
      await answerWith(response, lanes, operation, (result) => transferAnswer(operation, result));
    },
};

const bulk: Call = {
  path: '/v1/transfers/bulk',
  method: 'post',
  id: 'transfers',
  summary: 'Up to 1,000 transfers in one request, each standing alone',
  description: 'Partial success is normal: look at the `status` of each result.',
  scope: 'write',
  headers: traceHeader,
  body: { schema: bulkTransfersBody, example: { transfers: [{ ...EXAMPLE, idempotencyKey: 'order-1001' }] } },
  answers: { 200: { description: 'One result for each transfer, in order.', schema: answers.bulkTransfersAnswer } },
  refusals: [],
  handler:
    ({ lanes, readJsonBody, bulkBodyBytesMax, access }) =>
    async (request, response) => {
      const { transfers } = check(bulkTransfersBody, await readJsonBody(request, bulkBodyBytesMax));
      await access.countMore(response, transfers.length - 1);
      const sender = senderOf(request, response);
      const results = await Promise.all(
        transfers.map(async ({ idempotencyKey = null, ...body }) => {
          const operation = transferOf(body, { ...sender, idempotencyKey });
          return resultOf(operation, await lanes.submit(operation, 'bulk'), (result) =>
            transferAnswer(operation, result),
          );
        }),
      );
      sendJson(response, { results });
    },
};

/** The id is the event id of the lowest debited leg. */
const transferPath = z.object({
  id: z.string().refine((id) => parseEventId(id) !== undefined, 'must be a transferId, such as alice:1:mwtowow0'),
});

const read: Call = {
  path: '/v1/transfers/:id',
  method: 'get',
  id: 'readTransfer',
  summary: 'Read a transfer',
  description: 'All of its legs, as soon as it was answered.',
  scope: 'read',
  pathSchema: transferPath,
  answers: { 200: { description: 'As it took effect.', schema: answers.pastTransfer } },
  refusals: ['transfer_not_found'],
  handler:
    ({ pool }) =>
    async (request, response) => {
      const { id } = check(transferPath, { id: request.params.id }, inPath);
      const found = await inDatabase(() => findTransfer(pool, id));
      if (!found)
        throw new RequestProblem('transfer_not_found', { detail: 'A transferId is in the answer to the transfer.' });
      sendJson(response, found);
    },
};

export const transferCalls: readonly Call[] = [create, bulk, read];

/** `{from, to, amount}` is read as its two legs, also in the fingerprint; the order of legs says nothing. */
function transferOf({ from, to, amount, legs, ...its }: z.infer<typeof transferBody>, sender: Sender): Operation {
  const given = legs ?? [
    { accountId: from as string, amount: -(amount as number) },
    { accountId: to as string, amount: amount as number },
  ];
  const sorted = given.toSorted((one, other) => (one.accountId < other.accountId ? -1 : 1));
  return operationOf(
    'transfer',
    sorted.map((leg) => legOf(leg.accountId, leg.amount, its)),
    sender,
    'transfer',
    { legs: sorted, ...its },
  );
}
