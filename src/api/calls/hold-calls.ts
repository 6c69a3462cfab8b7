// The calls under /v1/accounts/{id}/holds: money that is set aside, and then captured, released or left to expire. The caller
// chooses the id of a hold, so placing it can be retried safely; the rest is, under an idempotency key.
import type { Request } from 'express';
import { z } from 'zod';
import { accountId, expiresInSeconds, HOLD_STATUSES, holdId, positiveAmount } from '../../shared/balance.ts';
import { check, inPath, inQuery } from '../http/input.ts';
import { sendJson } from '../http/json-answer.ts';
import { RequestProblem, sendProblem } from '../http/problems.ts';
import type { HoldState, HoldTarget, Leg, Operation } from '../updates/operation.ts';
import { accountPath, found, idOf, inDatabase, pageLimit } from './account-request.ts';
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
  replayHeader,
  type Sender,
  senderOf,
  traceHeader,
} from './operation-request.ts';

export const holdBody = z.strictObject({
  holdId,
  amount: positiveAmount,
  expiresInSeconds: expiresInSeconds.optional(),
  ...notes,
});

export const captureBody = z.strictObject({
  amount: positiveAmount.optional(),
  /** Whether what is left is released. */
  final: z.boolean().optional(),
  /** Who gets it. */
  to: accountId.optional(),
  ...notes,
});

export const releaseBody = z.strictObject({ amount: positiveAmount.optional(), ...notes });

export const holdChangeBody = z
  .strictObject({
    amount: positiveAmount.optional(),
    expiresInSeconds: expiresInSeconds.nullable().optional(),
    ...notes,
  })
  .refine(
    (change) => change.amount !== undefined || change.expiresInSeconds !== undefined,
    'needs amount, expiresInSeconds or both',
  );

const holdPath = z.object({ id: accountId, holdId });

const holdsQuery = z.strictObject({
  status: z.enum(HOLD_STATUSES, `must be one of ${HOLD_STATUSES.join(', ')}`).optional(),
  limit: pageLimit,
  cursor: holdId.optional(),
});

const account = ['account_not_found', 'account_closed', 'account_frozen'] as const;
const closing = ['hold_not_found', 'hold_closed', 'hold_expired', 'hold_amount_exceeded'] as const;

const place: Call = {
  path: '/v1/accounts/:id/holds',
  method: 'post',
  id: 'placeHold',
  summary: 'Set money aside',
  description:
    'What is held is not available to debits and other holds. With the same `holdId` and body it can be sent again without harm.',
  scope: 'write',
  pathSchema: accountPath,
  headers: traceHeader,
  body: { schema: holdBody, example: { holdId: 'checkout-1001', amount: 100, expiresInSeconds: 900 } },
  answers: {
    201: {
      description: 'This request placed it.',
      schema: answers.hold,
      headers: z.object({ Location: z.string().meta({ description: 'Path of the hold.' }) }),
    },
    200: { description: 'It was there, placed by the same request; this is how it is now.', schema: answers.hold },
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
  summary: 'List the holds of an account, all or those of one status',
  scope: 'read',
  pathSchema: accountPath,
  query: holdsQuery,
  answers: { 200: { description: 'A page.', schema: answers.holdsPage } },
  refusals: ['account_not_found'],
  handler:
    ({ pool }) =>
    async (request, response) => {
      const id = idOf(request);
      const { status, limit, cursor = '' } = check(holdsQuery, request.query, inQuery);
      const holds = await inDatabase(() => listHolds(pool, id, status, cursor, limit));
      if (holds.length === 0) found(id, await inDatabase(() => findAccount(pool, id)));
      sendJson(response, { holds, nextCursor: holds.length === limit ? holds.at(-1)?.holdId : null });
    },
};

const read: Call = {
  path: '/v1/accounts/:id/holds/:holdId',
  method: 'get',
  id: 'readHold',
  summary: 'Read a hold',
  description:
    'A hold that is due counts as expired for every debit and capture at once; here it does when its entry is written.',
  scope: 'read',
  pathSchema: holdPath,
  answers: { 200: { description: 'As it is now.', schema: answers.hold } },
  refusals: ['account_not_found', 'hold_not_found'],
  handler:
    ({ pool }) =>
    async (request, response) => {
      const { id, holdId } = holdPathOf(request);
      const hold = await inDatabase(() => findHold(pool, id, holdId));
      if (hold) return sendJson(response, hold);
      found(id, await inDatabase(() => findAccount(pool, id)));
      throw new RequestProblem('hold_not_found', { accountId: id });
    },
};

const capture: Call = {
  path: '/v1/accounts/:id/holds/:holdId/capture',
  method: 'post',
  id: 'captureHold',
  summary: 'Take what is held, all of it or in part',
  description:
    'What is left is released, unless `final` is false. With `to` the money goes to another account, as a transfer.',
  scope: 'write',
  pathSchema: holdPath,
  headers: keyHeader,
  body: { schema: captureBody, example: { amount: 80, to: 'bob' } },
  answers: { 200: { description: 'Captured.', schema: answers.captureAnswer, headers: replayHeader } },
  refusals: [
    ...(['idempotency_key_reused', ...account, 'asset_mismatch', ...closing] as const),
    ...(['balance_out_of_range', 'max_balance_exceeded', 'outcome_unknown'] as const),
  ],
  handler:
    ({ lanes, readJsonBody, bodyBytesMax }) =>
    async (request, response) => {
      const sent = await readJsonBody(request, bodyBytesMax);
      const path = holdPathOf(request);
      const body = check(captureBody, sent);
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
  summary: 'Free what is held, all of it or in part',
  scope: 'write',
  pathSchema: holdPath,
  headers: keyHeader,
  body: { schema: releaseBody, example: { amount: 20 } },
  answers: { 200: { description: 'Released.', schema: answers.holdAnswer, headers: replayHeader } },
  refusals: ['idempotency_key_reused', 'account_not_found', 'account_closed', ...closing, 'outcome_unknown'],
  handler:
    ({ lanes, readJsonBody, bodyBytesMax }) =>
    async (request, response) => {
      const sent = await readJsonBody(request, bodyBytesMax);
      const path = holdPathOf(request);
      const body = check(releaseBody, sent);
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
  summary: 'Change how much is held, or until when',
  description: '`amount` is the new total, with what was captured and released of it. Raising it needs funds.',
  scope: 'write',
  pathSchema: holdPath,
  headers: keyHeader,
  body: { schema: holdChangeBody, example: { amount: 120, expiresInSeconds: 3600 } },
  answers: { 200: { description: 'As it is now.', schema: answers.holdAnswer, headers: replayHeader } },
  refusals: [
    ...(['idempotency_key_reused', ...account, ...closing] as const),
    ...(['balance_out_of_range', 'insufficient_funds', 'outcome_unknown'] as const),
  ],
  handler:
    ({ lanes, readJsonBody, bodyBytesMax }) =>
    async (request, response) => {
      const sent = await readJsonBody(request, bodyBytesMax);
      const path = holdPathOf(request);
      const body = check(holdChangeBody, sent);
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

/** Its key belongs to the account of the hold, also where another one gets the money. */
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
