// What requests that move money have in common: the fields of their bodies, their headers, and how an operation is made of them.
import type { Request, Response } from 'express';
import { z } from 'zod';
import { metadata, reference } from '../../shared/balance.ts';
import { metadataText } from '../../shared/change.ts';
import { actorOf } from '../access/access.ts';
import { idempotencyKey, idempotencyKeyOf, traceparentOf } from '../http/input.ts';
import { sendJson } from '../http/json-answer.ts';
import { sendProblem } from '../http/problems.ts';
import { fingerprintOf } from '../updates/fingerprint.ts';
import type { Lanes } from '../updates/lanes.ts';
import type { Leg, Operation } from '../updates/operation.ts';
import { type Applied, problemOf } from './operation-answer.ts';

/** Of every request: the caller's own notes, which come back in events and entries. */
export const notes = { reference: reference.optional(), metadata: metadata.optional() };
export type Notes = { reference?: string | undefined; metadata?: Record<string, string> | undefined };

export const replayHeader = z.object({
  'Idempotent-Replayed': z
    .literal('true')
    .optional()
    .meta({ description: 'The first answer to this key, given again; also on refusals.' }),
});

export const keyHeader = z.object({
  'Idempotency-Key': idempotencyKey.optional().meta({
    description: 'Bare or as a quoted string. A retry under it, on the same account, gets the first answer again.',
    example: 'order-1001',
  }),
  traceparent: z.string().optional().meta({ description: 'W3C trace context; it goes on with the event.' }),
});
export const traceHeader = keyHeader.omit({ 'Idempotency-Key': true });

/** Who sends a request, under which key and in which trace. */
export interface Sender {
  idempotencyKey: string | null;
  actor: string | null;
  traceparent: string | null;
}

export function senderOf(request: Request, response: Response): Sender {
  return { idempotencyKey: idempotencyKeyOf(request), actor: actorOf(response), traceparent: traceparentOf(request) };
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
 * @param name of the call, for the fingerprint.
 * @param request what the request says, with what its path says.
 */
export function operationOf(
  kind: Operation['kind'],
  legs: readonly Leg[],
  { idempotencyKey, actor, traceparent }: Sender,
  name: string,
  request: object,
): Operation {
  return {
    ...{ kind, legs: legs as Operation['legs'], keyAccountId: keyAccountOf(legs) },
    ...{ idempotencyKey, actor, traceparent },
    fingerprint: idempotencyKey === null && kind !== 'hold' ? null : fingerprintOf(name, request),
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

/** Applies an operation and answers with what `body` makes of it, or with the problem of its refusal. */
export async function answerWith(
  response: Response,
  lanes: Lanes,
  operation: Operation,
  body: (result: Applied) => object,
): Promise<void> {
  const result = await lanes.submit(operation, 'single');
  if ('replayed' in result && result.replayed) response.setHeader('idempotent-replayed', 'true');
  if (result.outcome === 'applied') sendJson(response, body(result));
  else sendProblem(response, ...problemOf(operation, result));
}
