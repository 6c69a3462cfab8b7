// /v1/transfers: money between accounts, all legs or none; /bulk: many independent transfers; and
// reading a transfer.

import { AMOUNT_MAX, accountId, amount, positiveAmount } from '../../shared/balance.ts';
import { BULK_UPDATES_MAX, LEGS_MAX, TRANSFER_LEGS_MAX } from '../../shared/contract.ts';
import { z } from '../../shared/zod.ts';
import { boundOf, requireAllInside, requireInside } from '../access/account-bound.ts';
import { check, checkEach, idempotencyKey, inKeyedBody, inPath } from '../http/input.ts';
import { sendJson } from '../http/json-answer.ts';
import type { ListBody } from '../http/json-body.ts';
import { mapInPieces, type Pause } from '../http/pieces.ts';
import { RequestProblem } from '../http/problems.ts';
import type { Operation } from '../updates/operation.ts';
import * as answers from './answers.ts';
import { readBulk } from './bulk-request.ts';
import type { Call } from './call.ts';
import { accountOf, EXAMPLE_EVENT_ID, transferIdAsked } from './event-id.ts';
import { resultOf, transferAnswer } from './operation-answer.ts';
import {
  answerWith,
  EXAMPLE_KEY,
  keyHeader,
  legOf,
  notes,
  operationOf,
  type Sender,
  senderOf,
  traceHeader,
} from './operation-request.ts';
import { findTransfer } from './transfer-store.ts';

const SHAPE = 'needs either from, to and amount, or legs';
const LEGS = `must hold 2 to ${TRANSFER_LEGS_MAX} legs`;

/** From one account to another, or the general form of it. */
const transfer = z.strictObject({
  from: accountId.optional().meta({ description: 'The account that pays.' }),
  to: accountId.optional().meta({ description: 'The account that gets it.' }),
  amount: positiveAmount.optional().meta({ description: 'Minor units.' }),
  legs: z
    .array(
      z
        .strictObject({
          accountId,
          amount: amount.meta({ description: 'Minor units, not 0: a credit is positive, a debit negative.' }),
        })
        .meta({ id: 'NewLeg' }),
    )
    .min(2, LEGS)
    .max(TRANSFER_LEGS_MAX, LEGS)
    .optional()
    .meta({ description: 'Each account once, and the amounts add up to 0.' }),
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
  if (sum !== 0n)
    context.addIssue({ code: 'custom', path: ['legs'], message: `must add up to 0, but add up to ${sum}` });
  const debits = legs.reduce((total, leg) => total - BigInt(Math.min(0, leg.amount)), 0n);
  if (debits > BigInt(AMOUNT_MAX)) {
    context.addIssue({ code: 'custom', path: ['legs'], message: `must move at most ${AMOUNT_MAX} in total` });
  }
}

const FORMS = 'Either `from`, `to` and `amount`, or `legs`.';

export const transferBody = transfer.superRefine(checkTransfer).meta({ id: 'NewTransfer', description: FORMS });

const bulkTransfer = transfer
  .extend({ idempotencyKey: idempotencyKey.optional() })
  .superRefine(checkTransfer)
  .meta({ id: 'BulkTransfer', description: FORMS });
type BulkTransfer = z.infer<typeof bulkTransfer>;

const bulkOf = <Item extends z.ZodType>(item: Item) =>
  z.strictObject({
    transfers: z
      .array(item)
      .min(1, `must hold 1 to ${BULK_UPDATES_MAX} transfers`)
      .max(BULK_UPDATES_MAX, `must hold 1 to ${BULK_UPDATES_MAX} transfers`),
  });

const areFewLegs = ({ transfers }: { transfers: BulkTransfer[] }) => legsIn(transfers) <= LEGS_MAX;
const fewLegs = {
  path: ['transfers'],
  message: `must have at most ${LEGS_MAX} legs in total: split them into several requests`,
};

/** The whole. It is checked in three steps: what is around the transfers, each of them, all together. */
export const bulkTransfersBody = bulkOf(bulkTransfer).refine(areFewLegs, fewLegs).meta({ id: 'BulkTransfers' });
const bulkOutline = bulkOf(z.unknown());
const bulkTogether = bulkOf(z.custom<BulkTransfer>()).refine(areFewLegs, fewLegs);

async function checkBulk({ outline, read }: ListBody, pause: Pause): Promise<BulkTransfer[]> {
  const { transfers } = check(bulkOutline, outline);
  const each = await checkEach(bulkTransfer, transfers, read, 'transfers', pause);
  return check(bulkTogether, { transfers: each }).transfers;
}

const legsIn = (transfers: readonly { legs?: unknown[] | undefined }[]) =>
  transfers.reduce((sum, { legs }) => sum + (legs?.length ?? 2), 0);

const refusals = [
  ...(['idempotency_key_reused', 'account_not_found', 'account_closed', 'account_frozen', 'asset_mismatch'] as const),
  ...(['balance_out_of_range', 'max_balance_exceeded', 'insufficient_funds', 'outcome_unknown'] as const),
];
const EXAMPLE = { from: 'alice', to: 'bob', amount: 100, reference: 'order 1001' };

const create: Call = {
  path: '/v1/transfers',
  method: 'post',
  id: 'transfer',
  tag: 'Transfers',
  summary: 'Move money between accounts',
  description: 'All legs take effect, or none. A refusal names the account that caused it.',
  scope: 'write',
  headers: keyHeader,
  body: {
    schema: transferBody,
    examples: {
      pair: EXAMPLE,
      legs: {
        legs: [
          { accountId: 'alice', amount: -30 },
          { accountId: 'bob', amount: 30 },
        ],
      },
    },
  },
  answers: { 200: { description: 'Applied.', schema: answers.transfer } },
  isReplayed: true,
  refusals,
  handler:
    ({ lanes, readJsonBody, bodyBytesMax }) =>
    async (request, response) => {
      const body = check(transferBody, await readJsonBody(request, bodyBytesMax), inKeyedBody);
      const operation = transferOf(body, senderOf(request, response));
      await answerWith(response, lanes, operation, (result) => transferAnswer(operation, result));
    },
};

const bulk: Call = {
  path: '/v1/transfers/bulk',
  method: 'post',
  id: 'transfers',
  tag: 'Transfers',
  summary: 'Up to 1,000 independent transfers in one request',
  description: 'Partial success is normal: check the `status` of each result.',
  scope: 'write',
  headers: traceHeader,
  body: { schema: bulkTransfersBody, examples: { each: { transfers: [{ ...EXAMPLE, idempotencyKey: EXAMPLE_KEY }] } } },
  answers: { 200: { description: 'One result for each transfer, in order.', schema: answers.bulkTransfersAnswer } },
  refusals: [],
  handler: (deps) => async (request, response) => {
    const operations = await readBulk(deps, request, response, async (body, pause) => {
      const transfers = await checkBulk(body, pause);
      const sender = senderOf(request, response);
      return mapInPieces(
        transfers,
        ({ idempotencyKey = null, ...its }) => transferOf(its, { ...sender, idempotencyKey }),
        pause,
      );
    });
    const results = await Promise.all(
      operations.map(async (operation) =>
        resultOf(operation, await deps.lanes.submit(operation, 'bulk'), (result) => transferAnswer(operation, result)),
      ),
    );
    sendJson(response, { results });
  },
};

/** The id is the event id of the lowest debited leg. */
const transferPath = z.object({
  id: transferIdAsked.meta({
    description: 'A transferId, from the answer to the transfer.',
    example: EXAMPLE_EVENT_ID,
  }),
});

const read: Call = {
  path: '/v1/transfers/:id',
  method: 'get',
  id: 'readTransfer',
  tag: 'Transfers',
  summary: 'Read a transfer',
  description: 'All of its legs. Available as soon as the transfer was answered.',
  scope: 'read',
  pathSchema: transferPath,
  answers: { 200: { description: 'As it took effect.', schema: answers.pastTransfer } },
  refusals: ['transfer_not_found'],
  handler:
    ({ rows }) =>
    async (request, response) => {
      const { id } = check(transferPath, { id: request.params.id }, inPath);
      const bound = boundOf(response);
      requireInside(bound, accountOf(id));
      const found = await rows.query(response, (pool) => findTransfer(pool, id));
      if (!found)
        throw new RequestProblem('transfer_not_found', { detail: 'The transferId is in the answer to the transfer.' });
      requireAllInside(bound, found.legs);
      sendJson(response, found);
    },
};

export const transferCalls: readonly Call[] = [create, bulk, read];

function legsOf({ from, to, amount, legs }: z.infer<typeof transferBody>): { accountId: string; amount: number }[] {
  return (
    legs ?? [
      { accountId: from as string, amount: -(amount as number) },
      { accountId: to as string, amount: amount as number },
    ]
  );
}

/**
 * `{from, to, amount}` is read as its two legs, also in the fingerprint; the order of legs has no
 * meaning.
 */
function transferOf(body: z.infer<typeof transferBody>, sender: Sender): Operation {
  const { from, to, amount, legs, ...its } = body;
  const given = legsOf(body);
  const sorted = given.toSorted((one, other) => (one.accountId < other.accountId ? -1 : 1));
  return operationOf(
    'transfer',
    sorted.map((leg) => legOf(leg.accountId, leg.amount, its)),
    sender,
    'transfer',
    { legs: sorted, ...its },
  );
}
