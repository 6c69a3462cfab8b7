// POST /v1/balance-updates: one credit or debit, answered with the balance that it left; and /bulk: many, each standing
// alone or all or none, answered with one result each.
import { z } from 'zod';
import { accountId, amount, version } from '../../shared/balance.ts';
import { BULK_UPDATES_MAX } from '../../shared/contract.ts';
import { check, idempotencyKey, idempotencyKeyOf } from '../http/input.ts';
import { sendJson } from '../http/json-answer.ts';
import { problemDocument, RequestProblem } from '../http/problems.ts';
import type { Lanes } from '../updates/lanes.ts';
import type { Leg, Operation } from '../updates/operation.ts';
import * as answers from './answers.ts';
import type { Call } from './call.ts';
import { appliedLeg, problemOf, resultOf } from './operation-answer.ts';
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

const update = z.strictObject({
  accountId,
  amount,
  ...notes,
  /** Else the update is declined. */
  expectedVersion: version.optional(),
  /** A debit takes what is available, this amount at most and 1 at least. */
  upTo: z.boolean().optional(),
});
const isNoCreditUpTo = ({ amount, upTo }: { amount: number; upTo?: boolean | undefined }) => !(upTo && amount > 0);
const upToIsForDebits = { path: ['upTo'], message: 'is for debits: leave it out, or send a negative amount' };

export const balanceUpdateBody = update.refine(isNoCreditUpTo, upToIsForDebits);

export const bulkBody = z
  .strictObject({
    updates: z
      .array(update.extend({ idempotencyKey: idempotencyKey.optional() }).refine(isNoCreditUpTo, upToIsForDebits))
      .min(1, `must hold 1 to ${BULK_UPDATES_MAX} updates`)
      .max(BULK_UPDATES_MAX, `must hold 1 to ${BULK_UPDATES_MAX} updates`),
    /** All or none. */
    atomic: z.boolean().optional(),
  })
  .refine(({ atomic, updates }) => !atomic || updates.every((one) => one.idempotencyKey === undefined), {
    path: ['updates'],
    message: 'of an atomic request have no keys of their own: send the header Idempotency-Key',
  })
  // A retry gets what each was answered, and a key remembers one amount at most.
  .refine(({ atomic, updates }) => !atomic || updates.every((one) => !one.upTo), {
    path: ['updates'],
    message: 'of an atomic request cannot be upTo',
  });

const refusals = [
  ...(['idempotency_key_reused', 'account_not_found', 'account_closed', 'account_frozen', 'version_mismatch'] as const),
  ...(['balance_out_of_range', 'max_balance_exceeded', 'insufficient_funds', 'outcome_unknown'] as const),
];

const single: Call = {
  path: '/v1/balance-updates',
  method: 'post',
  id: 'updateBalance',
  summary: 'Credit or debit an account',
  description: 'The answer holds the balance that this change left.',
  scope: 'write',
  headers: keyHeader,
  body: { schema: balanceUpdateBody, example: { accountId: 'alice', amount: 250, reference: 'order 1001' } },
  answers: { 200: { description: 'Applied.', schema: answers.appliedUpdate, headers: replayHeader } },
  refusals,
  handler:
    ({ lanes, readJsonBody, bodyBytesMax }) =>
    async (request, response) => {
      const body = check(balanceUpdateBody, await readJsonBody(request, bodyBytesMax));
      const operation = updateOf(body, senderOf(request, response));
      await answerWith(response, lanes, operation, (result) => appliedLeg(operation, result));
    },
};

const bulk: Call = {
  path: '/v1/balance-updates/bulk',
  method: 'post',
  id: 'updateBalances',
  summary: 'Up to 1,000 updates in one request, each standing alone, or all or none',
  description:
    'Partial success is normal: look at the `status` of each result. With `atomic`, under one key in the header, all take effect or none.',
  scope: 'write',
  headers: keyHeader,
  body: {
    schema: bulkBody,
    example: { updates: [{ accountId: 'alice', amount: 250, idempotencyKey: 'order-1001' }] },
  },
  answers: {
    200: { description: 'One result for each update, in order.', schema: answers.bulkAnswer, headers: replayHeader },
  },
  refusals: [],
  handler:
    ({ lanes, readJsonBody, bulkBodyBytesMax, access }) =>
    async (request, response) => {
      const { updates, atomic } = check(bulkBody, await readJsonBody(request, bulkBodyBytesMax));
      await access.countMore(response, updates.length - 1);
      const sender = senderOf(request, response);
      if (atomic) {
        const { results, replayed } = await applyAtomically(lanes, updates, sender);
        if (replayed) response.setHeader('idempotent-replayed', 'true');
        return sendJson(response, { results });
      }
      if (idempotencyKeyOf(request) !== null) throw keyIsForAtomic();
      const results = await Promise.all(
        updates.map(async ({ idempotencyKey = null, ...body }) => {
          const operation = updateOf(body, { ...sender, idempotencyKey });
          return resultOf(operation, await lanes.submit(operation, 'bulk'), (result) => appliedLeg(operation, result));
        }),
      );
      sendJson(response, { results });
    },
};

export const balanceUpdateCalls: readonly Call[] = [single, bulk];

type Update = z.infer<typeof balanceUpdateBody>;

function legOfUpdate({ accountId, amount, expectedVersion, upTo, ...its }: Update): Leg {
  return { ...legOf(accountId, amount, its), expectedVersion: expectedVersion ?? null, upTo: upTo ?? false };
}

function updateOf(body: Update, sender: Sender): Operation {
  return operationOf('update', [legOfUpdate(body)], sender, 'balance-update', body);
}

/** A key for the whole of a request whose updates stand alone would promise what they do not do. */
function keyIsForAtomic(): RequestProblem {
  const what = 'is for atomic requests: give each update its idempotencyKey';
  return new RequestProblem('invalid_request', { errors: [{ where: 'header Idempotency-Key', what }] });
}

async function applyAtomically(
  lanes: Lanes,
  updates: readonly Update[],
  sender: Sender,
): Promise<{ results: object[]; replayed: boolean }> {
  const operation = operationOf('atomic', updates.map(legOfUpdate), sender, 'balance-updates', { updates });
  const result = await lanes.submit(operation, 'bulk');
  const replayed = 'replayed' in result && result.replayed;
  if (result.outcome === 'applied') {
    const results = updates.map((_, number) => ({ status: 200, replayed, ...appliedLeg(operation, result, number) }));
    return { results, replayed };
  }
  const problem = { ...problemDocument(...problemOf(operation, result)), replayed };
  // Where it is not about one update, or passes, it is about all of them: linked_failed would read like a decline.
  const failed =
    'leg' in result && result.outcome !== 'idempotency_key_reused' && result.outcome !== 'overloaded'
      ? result.leg
      : undefined;
  const results = updates.map(({ accountId }, number) =>
    failed === undefined || number === failed
      ? { ...problem, accountId }
      : {
          ...problemDocument('linked_failed', { detail: 'Another update of the request failed.', accountId }),
          replayed,
        },
  );
  return { results, replayed };
}
