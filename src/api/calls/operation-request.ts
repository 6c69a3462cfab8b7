// What requests that move money have in common: the fields of their bodies, their headers, and how an operation is made of them.
import type { Request, Response } from 'express';
import { givenMetadata, givenReference } from '../../shared/balance.ts';
import { metadataText } from '../../shared/change.ts';
import { z } from '../../shared/zod.ts';
import { type Bound, boundOf, requireInside } from '../access/account-bound.ts';
import { actorOf } from '../access/key-of.ts';
import { idempotencyKeyOf, traceparentOf } from '../http/input.ts';
import { sendJson } from '../http/json-answer.ts';
import { sendProblem } from '../http/problems.ts';
import { fingerprintOf } from '../updates/fingerprint.ts';
import type { Lanes } from '../updates/lanes.ts';
import type { Leg, Operation } from '../updates/operation.ts';
import { type Applied, problemOf } from './operation-answer.ts';

/** Of every request: the client's own notes, which are returned in events and entries. */
export const notes = { reference: givenReference.optional(), metadata: givenMetadata.optional() };
export type Notes = { reference?: string | undefined; metadata?: Record<string, string> | undefined };

/** In the examples. The page that shows them sends a new key each time. */
export const EXAMPLE_KEY = 'order-1001';
const KEY =
  'Bare or as a quoted string. A retry with the same key, on the same account, gets the first answer again; a different request needs a different key.';

/** As {@link idempotencyKeyOf} reads it. */
const keyInHeader = z
  .string()
  .min(1)
  .max(512)
  .regex(/^([!#-~]([ -~]{0,253}[!-~])?|"([ !#-[\]-~]|\\["\\]){1,255}")$/)
  .optional();

export const keyHeader = z.object({
  'Idempotency-Key': keyInHeader.meta({
    description: KEY,
    example: EXAMPLE_KEY,
  }),
  traceparent: z
    .string()
    .length(55)
    .regex(/^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/)
    .optional()
    .meta({ description: 'W3C trace context, published with the event. A malformed one is ignored.' }),
});
export const traceHeader = keyHeader.omit({ 'Idempotency-Key': true });
/** Without an example: an independent update has its key in the body. */
export const atomicKeyHeader = traceHeader.extend({
  'Idempotency-Key': keyInHeader.meta({ description: 'Only with `atomic`, for the whole request.' }),
});

/** Who sends a request, under which key and in which trace. */
export interface Sender {
  idempotencyKey: string | null;
  actor: string | null;
  traceparent: string | null;
  /** Of its API key. */
  bound: Bound;
}

export function senderOf(request: Request, response: Response): Sender {
  return {
    idempotencyKey: idempotencyKeyOf(request),
    actor: actorOf(response),
    traceparent: traceparentOf(request),
    bound: boundOf(response),
  };
}

export function legOf(
  accountId: string,
  amount: number | null,
  { reference = null, metadata }: { reference?: string | null | undefined; metadata?: Notes['metadata'] } = {},
): Leg {
  const text = metadata === undefined ? null : metadataText(metadata);
  return { accountId, amount, reference, metadata: text, expectedVersion: null, upTo: false };
}

/**
 * Operations are only made here, so none changes an account outside the bound of its API key.
 * @param name of the call, for the fingerprint.
 * @param request what the request says, with what its path says.
 * @throws RequestProblem forbidden
 */
export function operationOf(
  kind: Operation['kind'],
  legs: readonly Leg[],
  sender: Sender,
  name: string,
  request: object,
): Operation {
  const isKnownAgain = sender.idempotencyKey !== null || kind === 'hold';
  return operationWith(kind, legs, sender, isKnownAgain ? fingerprintOf(name, request) : null);
}

/** @throws RequestProblem forbidden, where the key is bound to other accounts. */
export function operationWith(
  kind: Operation['kind'],
  legs: readonly Leg[],
  { idempotencyKey, actor, traceparent, bound }: Sender,
  fingerprint: string | null,
): Operation {
  for (const { accountId } of legs) requireInside(bound, accountId);
  return {
    ...{ kind, legs: legs as Operation['legs'], keyAccountId: keyAccountOf(legs) },
    ...{ idempotencyKey, fingerprint, actor, traceparent },
  };
}

/** The lowest debited one, or the lowest: whatever the order of legs. */
function keyAccountOf(legs: readonly Leg[]): string {
  const [first] = legs as [Leg];
  if (legs.length === 1) return first.accountId;
  const isDebit = ({ amount }: Leg) => (amount ?? 0) < 0;
  const candidates = legs.some(isDebit) ? legs.filter(isDebit) : legs;
  return candidates.map(({ accountId }) => accountId).sort()[0] as string;
}

/** Then more declines can be remembered, if not many: docs/run.md. */
const RETRY_DECLINED_S = 1;

/** Applies an operation and answers with what `body` makes of it, or with the problem of its refusal. */
export async function answerWith(
  response: Response,
  lanes: Lanes,
  operation: Operation,
  body: (result: Applied) => object,
): Promise<void> {
  const result = await lanes.submit(operation, 'single');
  if ('replayed' in result && result.replayed) response.setHeader('idempotent-replayed', 'true');
  if (result.outcome === 'rate_limited') response.setHeader('retry-after', RETRY_DECLINED_S);
  if (result.outcome === 'applied') sendJson(response, body(result));
  else sendProblem(response, ...problemOf(operation, result));
}
