// POST /v1/balance-updates: one credit or debit, answered with the balance that it left; and /bulk:
// many updates, independent or all-or-none, answered with one result each.

import { accountId, amount, version } from '../../shared/balance.ts';
import { BULK_UPDATES_MAX } from '../../shared/contract.ts';
import { z } from '../../shared/zod.ts';
import { check, checkEach, idempotencyKey, inKeyedBody } from '../http/input.ts';
import { sendJson } from '../http/json-answer.ts';
import type { ListBody } from '../http/json-body.ts';
import { mapInPieces, type Pause } from '../http/pieces.ts';
import { problemDocument, RequestProblem } from '../http/problems.ts';
import { fingerprintOfList } from '../updates/fingerprint.ts';
import type { Lanes } from '../updates/lanes.ts';
import type { Leg, Operation } from '../updates/operation.ts';
import * as answers from './answers.ts';
import { readBulk } from './bulk-request.ts';
import type { Call } from './call.ts';
import { appliedLeg, problemOf, resultOf } from './operation-answer.ts';
import {
  answerWith,
  atomicKeyHeader,
  EXAMPLE_KEY,
  keyHeader,
  legOf,
  notes,
  operationOf,
  operationWith,
  type Sender,
  senderOf,
} from './operation-request.ts';

const update = z.strictObject({
  accountId,
  amount: amount.meta({ description: 'Minor units, not 0: a credit is positive, a debit negative.' }),
  ...notes,
  expectedVersion: version
    .optional()
    .meta({ description: 'If the account has another version, the update is declined as `version_mismatch`.' }),
  upTo: z
    .boolean()
    .optional()
    .meta({ description: 'For a debit: take what is available, at most `amount` and at least 1.' }),
});
const isNoCreditUpTo = ({ amount, upTo }: { amount: number; upTo?: boolean | undefined }) => !(upTo && amount > 0);
const upToIsForDebits = { path: ['upTo'], message: 'is for debits: leave it out, or send a negative amount' };

export const balanceUpdateBody = update.refine(isNoCreditUpTo, upToIsForDebits).meta({ id: 'BalanceUpdate' });

const bulkUpdate = update
  .extend({ idempotencyKey: idempotencyKey.optional() })
  .refine(isNoCreditUpTo, upToIsForDebits)
  .meta({ id: 'BulkUpdate' });
type BulkUpdate = z.infer<typeof bulkUpdate>;

const bulkOf = <Item extends z.ZodType>(item: Item) =>
  z.strictObject({
    updates: z
      .array(item)
      .min(1, `must hold 1 to ${BULK_UPDATES_MAX} updates`)
      .max(BULK_UPDATES_MAX, `must hold 1 to ${BULK_UPDATES_MAX} updates`),
    atomic: z
      .boolean()
      .optional()
      .meta({ description: 'All or none. The idempotency key is then in the header, and the updates have none.' }),
  });

function checkTogether(
  { atomic, updates }: { atomic?: boolean | undefined; updates: BulkUpdate[] },
  context: z.RefinementCtx,
): void {
  if (!atomic) return;
  const addIssue = (message: string) => context.addIssue({ code: 'custom', path: ['updates'], message });
  if (updates.some((one) => one.idempotencyKey !== undefined)) {
    addIssue('of an atomic request must not have idempotency keys: send the header Idempotency-Key instead');
  }
  // A retry gets what each was answered, and a key remembers one amount at most.
  if (updates.some((one) => one.upTo)) addIssue('of an atomic request cannot be upTo');
}

/** The whole. It is checked in three steps: what is around the updates, each of them, all together. */
export const bulkBody = bulkOf(bulkUpdate).superRefine(checkTogether).meta({ id: 'BulkUpdates' });
const bulkOutline = bulkOf(z.unknown());
const bulkTogether = bulkOf(z.custom<BulkUpdate>()).superRefine(checkTogether);

async function checkBulk({ outline, read }: ListBody, pause: Pause) {
  const { updates, atomic } = check(bulkOutline, outline);
  const each = await checkEach(bulkUpdate, updates, read, 'updates', pause);
  return check(bulkTogether, { updates: each, atomic });
}

const refusals = [
  ...(['idempotency_key_reused', 'account_not_found', 'account_closed', 'account_frozen', 'version_mismatch'] as const),
  ...(['balance_out_of_range', 'max_balance_exceeded', 'insufficient_funds', 'outcome_unknown'] as const),
];

const single: Call = {
  path: '/v1/balance-updates',
  method: 'post',
  id: 'updateBalance',
  tag: 'Balance updates',
  summary: 'Credit or debit an account',
  description: 'The answer contains the balance after this change.',
  scope: 'write',
  headers: keyHeader,
  body: {
    schema: balanceUpdateBody,
    examples: {
      credit: { accountId: 'alice', amount: 250, reference: 'order 1001' },
      debit: { accountId: 'alice', amount: -20 },
    },
  },
  answers: { 200: { description: 'Applied.', schema: answers.appliedUpdate } },
  isReplayed: true,
  refusals,
  handler:
    ({ lanes, readJsonBody, bodyBytesMax }) =>
    async (request, response) => {
      const body = check(balanceUpdateBody, await readJsonBody(request, bodyBytesMax), inKeyedBody);
      const operation = updateOf(body, senderOf(request, response));
      await answerWith(response, lanes, operation, (result) => appliedLeg(operation, result));
    },
};

const bulk: Call = {
  path: '/v1/balance-updates/bulk',
  method: 'post',
  id: 'updateBalances',
  tag: 'Balance updates',
  summary: 'Up to 1,000 updates in one request, independent or all or none',
  description:
    'Partial success is normal: check the `status` of each result. With `atomic`, and one key in the header, all take effect or none.',
  scope: 'write',
  headers: atomicKeyHeader,
  body: {
    schema: bulkBody,
    examples: {
      each: { updates: [{ accountId: 'alice', amount: 250, idempotencyKey: EXAMPLE_KEY }] },
      atomic: {
        updates: [
          { accountId: 'alice', amount: 250 },
          { accountId: 'alice', amount: -50 },
        ],
        atomic: true,
      },
    },
  },
  answers: {
    200: { description: 'One result for each update, in order.', schema: answers.bulkAnswer },
  },
  isReplayed: true,
  refusals: [],
  handler: (deps) => async (request, response) => {
    const operations = await readBulk(deps, request, response, async (body, pause) => {
      const { updates, atomic } = await checkBulk(body, pause);
      const sender = senderOf(request, response);
      if (atomic) return [await atomicOf(updates, sender, pause)];
      if (sender.idempotencyKey !== null) throw keyIsForAtomic();
      return mapInPieces(
        updates,
        ({ idempotencyKey = null, ...its }) => updateOf(its, { ...sender, idempotencyKey }),
        pause,
      );
    });
    const [first] = operations as [Operation];
    if (first.kind === 'atomic') {
      const { results, replayed } = await applyAtomically(deps.lanes, first);
      if (replayed) response.setHeader('idempotent-replayed', 'true');
      return sendJson(response, { results });
    }
    const results = await Promise.all(
      operations.map(async (operation) =>
        resultOf(operation, await deps.lanes.submit(operation, 'bulk'), (result) => appliedLeg(operation, result)),
      ),
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

const ABOUT_ALL: ReadonlySet<string> = new Set(['idempotency_key_reused', 'overloaded', 'rate_limited']);

/**
 * A key for a whole request of independent updates would promise an atomicity that they do not
 * have.
 */
function keyIsForAtomic(): RequestProblem {
  const what = 'is for atomic requests: give each update its idempotencyKey';
  return new RequestProblem('invalid_request', { errors: [{ where: 'header Idempotency-Key', what }] });
}

async function atomicOf(updates: readonly Update[], sender: Sender, pause: Pause): Promise<Operation> {
  const legs = await mapInPieces(updates, legOfUpdate, pause);
  const isKeyed = sender.idempotencyKey !== null;
  const fingerprint = isKeyed ? await fingerprintOfList('balance-updates', 'updates', updates, pause) : null;
  return operationWith('atomic', legs, sender, fingerprint);
}

async function applyAtomically(lanes: Lanes, operation: Operation): Promise<{ results: object[]; replayed: boolean }> {
  const { legs } = operation;
  const result = await lanes.submit(operation, 'bulk');
  const replayed = 'replayed' in result && result.replayed;
  if (result.outcome === 'applied') {
    const results = legs.map((_, number) => ({ status: 200, replayed, ...appliedLeg(operation, result, number) }));
    return { results, replayed };
  }
  const problem = { ...problemDocument(...problemOf(operation, result)), replayed };
  // A temporary refusal, or one that is not about one update, is given for all of them:
  // linked_failed would read like a decline.
  const failed = 'leg' in result && !ABOUT_ALL.has(result.outcome) ? result.leg : undefined;
  const results = legs.map(({ accountId }, number) =>
    failed === undefined || number === failed
      ? { ...problem, accountId }
      : {
          ...problemDocument('linked_failed', { detail: 'Another update of the request failed.', accountId }),
          replayed,
        },
  );
  return { results, replayed };
}
