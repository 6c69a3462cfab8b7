// The calls under /v1/accounts/{id}/holds: money set aside, then captured, released or left to
// expire. The client chooses the id of a hold, so placing it is safe to retry; the other calls are
// with an idempotency key.
import type { Request } from 'express';
import { accountId, expiresInSeconds, HOLD_STATUSES, holdId, positiveAmount } from '../../shared/balance.ts';
import { z } from '../../shared/zod.ts';
import { check, inKeyedBody, inPath, inQuery } from '../http/input.ts';
import { sendJson } from '../http/json-answer.ts';
import { RequestProblem, sendProblem } from '../http/problems.ts';
import type { HoldState, HoldTarget, Leg, Operation } from '../updates/operation.ts';
import { accountPath, CURSOR, found, idOf, pageLimit } from './account-request.ts';
import { findAccount } from './account-store.ts';
import * as answers from './answers.ts';
import type { Call } from './call.ts';
import { findHold, listHolds } from './hold-store.ts';
import { type Applied, appliedLeg, holdOf, problemOf } from './operation-answer.ts';
import {
  answerWith,
  keyHeader,
  legOf,
  notes,
  operationOf,
  type Sender,
  senderOf,
  traceHeader,
} from './operation-request.ts';

export const holdBody = z
  .strictObject({
    holdId: holdId.meta({ description: 'Chosen by you; unique within the account, permanently.' }),
    amount: positiveAmount.meta({ description: 'Minor units.' }),
    expiresInSeconds: expiresInSeconds.optional().meta({ description: 'It does not expire when left out.' }),
    ...notes,
  })
  .meta({ id: 'NewHold' });

const partOfHold = positiveAmount.optional().meta({ description: 'Minor units; all that is left when left out.' });

export const captureBody = z
  .strictObject({
    amount: partOfHold,
    final: z.boolean().optional().meta({ description: 'Whether the rest is released; true when left out.' }),
    to: accountId.optional().meta({ description: 'The account that gets it: the capture is a transfer then.' }),
    ...notes,
  })
  .meta({ id: 'HoldCapture' });

export const releaseBody = z.strictObject({ amount: partOfHold, ...notes }).meta({ id: 'HoldRelease' });

export const holdChangeBody = z
  .strictObject({
    amount: positiveAmount
      .optional()
      .meta({ description: 'The new total in minor units, including what was already captured and released.' }),
    expiresInSeconds: expiresInSeconds
      .nullable()
      .optional()
      .meta({ description: 'From now on; null: it does not expire.' }),
    ...notes,
  })
  .refine(
    (change) => change.amount !== undefined || change.expiresInSeconds !== undefined,
    'needs amount, expiresInSeconds or both',
  )
  .meta({ id: 'HoldChange', description: '`amount`, `expiresInSeconds` or both.' });

const EXAMPLE_HOLD = 'checkout-1001';
const holdPath = accountPath.extend({ holdId: holdId.meta({ description: 'The hold.', example: EXAMPLE_HOLD }) });

const holdsQuery = z.strictObject({
  status: z.enum(HOLD_STATUSES, `must be one of ${HOLD_STATUSES.join(', ')}`).optional(),
  limit: pageLimit,
  cursor: holdId.optional().meta({ description: CURSOR }),
});

const account = ['account_not_found', 'account_closed', 'account_frozen'] as const;
const closing = ['hold_not_found', 'hold_closed', 'hold_expired', 'hold_amount_exceeded'] as const;

const place: Call = {
  path: '/v1/accounts/:id/holds',
  method: 'post',
  id: 'placeHold',
  tag: 'Holds',
  summary: 'Set money aside',
  description:
    'Held money is not available to debits and other holds. Retrying with the same `holdId` and body is safe.',
  scope: 'write',
  pathSchema: accountPath,
  headers: traceHeader,
  body: { schema: holdBody, examples: { checkout: { holdId: EXAMPLE_HOLD, amount: 100, expiresInSeconds: 900 } } },
  answers: {
    201: {
      description: 'This request placed it.',
      schema: answers.hold,
      headers: z.object({ Location: answers.location('Path of the hold.') }),
    },
    200: { description: 'It was already placed by the same request; this is its current state.', schema: answers.hold },
  },
  refusals: ['hold_exists', ...account, 'balance_out_of_range', 'insufficient_funds', 'outcome_unknown'],
  handler:
    ({ lanes, readJsonBody, bodyBytesMax }) =>
    async (request, response) => {
      const sent = await readJsonBody(request, bodyBytesMax);
      const id = idOf(request);
      const body = check(holdBody, sent);
      const { holdId, amount, expiresInSeconds = null, ...its } = body;
      const sender = { ...senderOf(request, response), idempotencyKey: null };
      const operation: Operation = {
        ...operationOf('hold', [legOf(id, amount, its)], sender, 'hold', { id, ...body }),
        hold: { holdId, expiresInS: expiresInSeconds },
      };
      const result = await lanes.submit(operation, 'single');
      if (result.outcome !== 'applied') return sendProblem(response, ...problemOf(operation, result));
      const path = `/v1/accounts/${encodeURIComponent(id)}/holds/${encodeURIComponent(holdId)}`;
      if (!result.replayed) response.status(201).setHeader('location', path);
      sendJson(response, holdOf(operation, result.hold as HoldState));
    },
};

const list: Call = {
  path: '/v1/accounts/:id/holds',
  method: 'get',
  id: 'listHolds',
  tag: 'Holds',
  summary: 'List the holds of an account, all or those of one status',
  scope: 'read',
  pathSchema: accountPath,
  query: holdsQuery,
  answers: { 200: { description: 'A page.', schema: answers.holdsPage } },
  refusals: ['account_not_found'],
  handler:
    ({ rows, pages }) =>
    async (request, response) => {
      const id = idOf(request);
      const { status, limit, cursor = '' } = check(holdsQuery, request.query, inQuery);
      const holds = await pages.query(response, (pool) => listHolds(pool, id, status, cursor, limit));
      if (holds.length === 0) found(id, await rows.query(response, (pool) => findAccount(pool, id)));
      sendJson(response, { holds, nextCursor: holds.length === limit ? holds.at(-1)?.holdId : null });
    },
};

const read: Call = {
  path: '/v1/accounts/:id/holds/:holdId',
  method: 'get',
  id: 'readHold',
  tag: 'Holds',
  summary: 'Read a hold',
  description:
    'Debits and captures treat a hold as expired the moment it is due; this call shows it as expired once its entry is written.',
  scope: 'read',
  pathSchema: holdPath,
  answers: { 200: { description: 'As it is now.', schema: answers.hold } },
  refusals: ['account_not_found', 'hold_not_found'],
  handler:
    ({ rows }) =>
    async (request, response) => {
      const { id, holdId } = holdPathOf(request);
      const hold = await rows.query(response, (pool) => findHold(pool, id, holdId));
      if (hold) return sendJson(response, hold);
      found(id, await rows.query(response, (pool) => findAccount(pool, id)));
      throw new RequestProblem('hold_not_found', { accountId: id });
    },
};

const capture: Call = {
  path: '/v1/accounts/:id/holds/:holdId/capture',
  method: 'post',
  id: 'captureHold',
  tag: 'Holds',
  summary: 'Capture a hold, whole or in part',
  description:
    'The rest is released, unless `final` is false. With `to`, the money goes to another account, as a transfer.',
  scope: 'write',
  pathSchema: holdPath,
  headers: keyHeader,
  body: { schema: captureBody, examples: { part: { amount: 30, final: false, to: 'bob' } } },
  answers: { 200: { description: 'Captured.', schema: answers.captureAnswer } },
  isReplayed: true,
  refusals: [
    ...(['idempotency_key_reused', ...account, 'asset_mismatch', ...closing] as const),
    ...(['balance_out_of_range', 'max_balance_exceeded', 'outcome_unknown'] as const),
  ],
  handler:
    ({ lanes, readJsonBody, bodyBytesMax }) =>
    async (request, response) => {
      const sent = await readJsonBody(request, bodyBytesMax);
      const path = holdPathOf(request);
      const body = check(captureBody, sent, inKeyedBody);
      const { amount, final = true, to, ...its } = body;
      if (to === path.id) {
        throw new RequestProblem('invalid_request', { errors: [{ where: '/to', what: 'must be another account' }] });
      }
      const legs = [legOf(path.id, amount === undefined ? null : -amount, its)];
      if (to !== undefined) legs.push(legOf(to, amount ?? null, its));
      const kind = final ? 'capture_final' : 'capture';
      const operation = holdOperation(kind, path, legs, senderOf(request, response), 'capture', body);
      await answerWith(response, lanes, operation, (result) => captureAnswer(operation, result));
    },
};

const release: Call = {
  path: '/v1/accounts/:id/holds/:holdId/release',
  method: 'post',
  id: 'releaseHold',
  tag: 'Holds',
  summary: 'Release a hold, whole or in part',
  scope: 'write',
  pathSchema: holdPath,
  headers: keyHeader,
  body: { schema: releaseBody, examples: { part: { amount: 20 } } },
  answers: { 200: { description: 'Released.', schema: answers.holdAnswer } },
  isReplayed: true,
  refusals: ['idempotency_key_reused', 'account_not_found', 'account_closed', ...closing, 'outcome_unknown'],
  handler:
    ({ lanes, readJsonBody, bodyBytesMax }) =>
    async (request, response) => {
      const sent = await readJsonBody(request, bodyBytesMax);
      const path = holdPathOf(request);
      const body = check(releaseBody, sent, inKeyedBody);
      const { amount = null, ...its } = body;
      const legs = [legOf(path.id, amount, its)];
      const operation = holdOperation('release', path, legs, senderOf(request, response), 'release', body);
      await answerWith(response, lanes, operation, (result) => holdAnswer(operation, result));
    },
};

const change: Call = {
  path: '/v1/accounts/:id/holds/:holdId',
  method: 'patch',
  id: 'changeHold',
  tag: 'Holds',
  summary: 'Change the amount or the expiry of a hold',
  description: '`amount` is the new total, including what was already captured and released. Raising it needs funds.',
  scope: 'write',
  pathSchema: holdPath,
  headers: keyHeader,
  body: { schema: holdChangeBody, examples: { longer: { amount: 120, expiresInSeconds: 3600 } } },
  answers: { 200: { description: 'As it is now.', schema: answers.holdAnswer } },
  isReplayed: true,
  refusals: [
    ...(['idempotency_key_reused', ...account, ...closing] as const),
    ...(['balance_out_of_range', 'insufficient_funds', 'outcome_unknown'] as const),
  ],
  handler:
    ({ lanes, readJsonBody, bodyBytesMax }) =>
    async (request, response) => {
      const sent = await readJsonBody(request, bodyBytesMax);
      const path = holdPathOf(request);
      const body = check(holdChangeBody, sent, inKeyedBody);
      const { amount = null, expiresInSeconds, ...its } = body;
      const legs = [legOf(path.id, amount, its)];
      const expiresInS = expiresInSeconds === null ? NEVER : (expiresInSeconds ?? null);
      const sender = senderOf(request, response);
      const operation = holdOperation('hold_change', path, legs, sender, 'hold-change', body, expiresInS);
      await answerWith(response, lanes, operation, (result) => holdAnswer(operation, result));
    },
};

export const holdCalls: readonly Call[] = [place, list, read, capture, release, change];

type HoldPath = z.infer<typeof holdPath>;
/** As {@link HoldTarget} says it. */
const NEVER = 0;

function holdPathOf(request: Request): HoldPath {
  return check(holdPath, { id: request.params.id, holdId: request.params.holdId }, inPath);
}

/** Its key belongs to the account of the hold, even if another account gets the money. */
function holdOperation(
  kind: Operation['kind'],
  { id, holdId }: HoldPath,
  legs: readonly Leg[],
  sender: Sender,
  name: string,
  body: object,
  expiresInS: HoldTarget['expiresInS'] = null,
): Operation {
  const operation = operationOf(kind, legs, sender, name, { id, holdId, ...body });
  return { ...operation, keyAccountId: id, hold: { holdId, expiresInS } };
}

function holdAnswer(operation: Operation, result: Applied) {
  return { ...appliedLeg(operation, result), hold: holdOf(operation, result.hold as HoldState) };
}

function captureAnswer(operation: Operation, result: Applied) {
  const answer = holdAnswer(operation, result);
  if (operation.legs.length === 1) return answer;
  const { createdAt, ...to } = appliedLeg(operation, result, 1);
  return { ...answer, transferId: answer.eventId, to };
}
