// POST /v1/reversals: undoes a change, whole or in part, and never more than once in total.

import type { Response } from 'express';
import { positiveAmount } from '../../shared/balance.ts';
import { type Change, eventId } from '../../shared/change.ts';
import { z } from '../../shared/zod.ts';
import { requireAllInside, requireInside } from '../access/account-bound.ts';
import { check, inKeyedBody } from '../http/input.ts';
import { RequestProblem } from '../http/problems.ts';
import type { Operation, ReversalTarget } from '../updates/operation.ts';
import * as answers from './answers.ts';
import type { Call } from './call.ts';
import { type ChangeName, EXAMPLE_EVENT_ID, eventIdAsked, parseEventId } from './event-id.ts';
import { transferAnswer } from './operation-answer.ts';
import { answerWith, keyHeader, legOf, notes, operationOf, type Sender, senderOf } from './operation-request.ts';
import type { QueryLine } from './query-line.ts';
import { findChange, findLegs } from './transfer-store.ts';

export const reversalBody = z
  .strictObject({
    of: eventIdAsked('must be an eventId or a transferId, such as alice:1:mwtowow0').meta({
      description: 'The eventId of a change, or the transferId of a transfer.',
    }),
    amount: positiveAmount.optional().meta({ description: 'Minor units; all that is left when left out.' }),
    ...notes,
  })
  .meta({ id: 'NewReversal' });

const create: Call = {
  path: '/v1/reversals',
  method: 'post',
  id: 'reverse',
  tag: 'Reversals',
  summary: 'Reverse a change or a transfer, in part or as much as is left',
  description:
    'A reversal is an ordinary change with the opposite amount; `reverses` in its event and entry is the id of the original. All reversals of a change together never exceed it.',
  scope: 'write',
  headers: keyHeader,
  body: { schema: reversalBody, examples: { part: { of: EXAMPLE_EVENT_ID, amount: 10 } } },
  answers: { 200: { description: 'Applied.', schema: answers.reversal } },
  isReplayed: true,
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
    ({ lanes, rows, readJsonBody, bodyBytesMax }) =>
    async (request, response) => {
      const body = check(reversalBody, await readJsonBody(request, bodyBytesMax), inKeyedBody);
      const operation = await reversalOf(rows, response, body, senderOf(request, response));
      await answerWith(response, lanes, operation, (result) => {
        const { transferId, ...rest } = transferAnswer(operation, result);
        return { reverses: body.of, ...(operation.legs.length > 1 && { transferId }), ...rest };
      });
    },
};

export const reversalCalls: readonly Call[] = [create];

/** What is reversed never changes, so it is read here; how much of it is left is decided under the lock of its account. */
async function reversalOf(
  rows: QueryLine,
  response: Response,
  { of, amount, ...its }: z.infer<typeof reversalBody>,
  sender: Sender,
): Promise<Operation> {
  const name = parseEventId(of) as ChangeName;
  requireInside(sender.bound, name.accountId);
  const change = await rows.query(response, (pool) => findChange(pool, name));
  if (!change)
    throw new RequestProblem('change_not_found', {
      detail: 'The eventId is in the answer to a change, the transferId in the answer to a transfer.',
    });
  const legs = change.transferId === of ? await rows.query(response, (pool) => findLegs(pool, of)) : [change];
  requireAllInside(sender.bound, legs);
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
