// POST /v1/reversals: takes a change back, all of it or in part, once in all.
import { z } from 'zod';
import { positiveAmount } from '../../shared/balance.ts';
import { type Change, eventId } from '../../shared/change.ts';
import type { Pool } from '../../shared/database.ts';
import { check } from '../http/input.ts';
import { RequestProblem } from '../http/problems.ts';
import type { Operation, ReversalTarget } from '../updates/operation.ts';
import { inDatabase } from './account-request.ts';
import * as answers from './answers.ts';
import type { Call } from './call.ts';
import { transferAnswer } from './operation-answer.ts';
import {
  answerWith,
  keyHeader,
  legOf,
  notes,
  operationOf,
  replayHeader,
  type Sender,
  senderOf,
} from './operation-request.ts';
import { findChange, findLegs, parseEventId } from './transfer-store.ts';

export const reversalBody = z.strictObject({
  of: z
    .string()
    .refine((id) => parseEventId(id) !== undefined, 'must be an eventId or a transferId, such as alice:1:mwtowow0'),
  amount: positiveAmount.optional(),
  ...notes,
});

const create: Call = {
  path: '/v1/reversals',
  method: 'post',
  id: 'reverse',
  summary: 'Reverse a change or a transfer, in part or as much as is left',
  description:
    'An ordinary change with the opposite amount, which names what it reverses. All reversals of a change together never exceed it.',
  scope: 'write',
  headers: keyHeader,
  body: { schema: reversalBody, example: { of: answers.EXAMPLE_EVENT_ID, amount: 100 } },
  answers: { 200: { description: 'Applied.', schema: answers.reversal, headers: replayHeader } },
  refusals: [
    ...(['idempotency_key_reused', 'change_not_found', 'account_closed', 'account_frozen', 'not_reversible'] as const),
    ...([
      'already_reversed',
      'reversal_exceeds',
      'balance_out_of_range',
      'insufficient_funds',
      'outcome_unknown',
    ] as const),
  ],
  handler:
    ({ lanes, pool, readJsonBody, bodyBytesMax }) =>
    async (request, response) => {
      const body = check(reversalBody, await readJsonBody(request, bodyBytesMax));
      const operation = await reversalOf(pool, body, senderOf(request, response));
      await answerWith(response, lanes, operation, (result) => {
        const { transferId, ...rest } = transferAnswer(operation, result);
        return { reverses: body.of, ...(operation.legs.length > 1 && { transferId }), ...rest };
      });
    },
};

export const reversalCalls: readonly Call[] = [create];

/** What is reversed never changes, so it is read here; how much of it is left is decided under the lock of its account. */
async function reversalOf(
  pool: Pool,
  { of, amount, ...its }: z.infer<typeof reversalBody>,
  sender: Sender,
): Promise<Operation> {
  const change = await inDatabase(() =>
    findChange(pool, parseEventId(of) as NonNullable<ReturnType<typeof parseEventId>>),
  );
  if (!change)
    throw new RequestProblem('change_not_found', {
      detail: 'An eventId is in the answer to the change, a transferId in that to a transfer.',
    });
  const legs = change.transferId === of ? await inDatabase(() => findLegs(pool, of)) : [change];
  if (amount !== undefined && legs.length > 2) {
    const what = `must be left out: a transfer of ${legs.length} legs is reversed whole`;
    throw new RequestProblem('invalid_request', { errors: [{ where: '/amount', what }] });
  }
  const signed = (leg: Change) => (amount === undefined ? -leg.amount : -Math.sign(leg.amount) * amount);
  const operation = operationOf(
    amount === undefined ? 'reversal_rest' : 'reversal',
    // What has no money cannot be reversed: any amount says so.
    legs.map((leg) => legOf(leg.accountId, signed(leg) || 1, its)),
    sender,
    'reversal',
    { of, amount, ...its },
  );
  return { ...operation, reversal: targetOf(of, change, legs) };
}

function targetOf(id: string, change: Change, legs: readonly Change[]): ReversalTarget {
  const isReversible = change.amount !== 0 && change.reverses === null && (change.transferId ?? id) === id;
  const moved =
    legs.length === 1 ? Math.abs(change.amount) : legs.reduce((sum, leg) => sum - Math.min(0, leg.amount), 0);
  const { accountId, version, epoch } = legs.find((leg) => eventId(leg) === id) ?? change;
  return { accountId, version, epoch, original: isReversible ? moved : null, id };
}
