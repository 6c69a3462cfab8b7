// POST /v1/balance-updates: one credit or debit, answered with the balance that it left.
import type { RequestHandler, Response } from 'express';
import { z } from 'zod';
import { accountId, amount, reference } from '../shared/balance.ts';
import { eventId } from '../shared/events.ts';
import { check, idempotencyKeyOf, traceparentOf } from './input.ts';
import { readJsonBody } from './json-body.ts';
import type { BalanceUpdate, UpdateResult } from './lane.ts';
import type { Lanes } from './lanes.ts';
import { type ProblemCode, type ProblemDetails, sendProblem } from './problems.ts';

export const balanceUpdateBody = z.strictObject({ accountId, amount, reference: reference.optional() });

export interface BalanceUpdateOptions {
  lanes: Lanes;
  bodyBytesMax: number;
}

export function postBalanceUpdate({ lanes, bodyBytesMax }: BalanceUpdateOptions): RequestHandler {
  return async (request, response) => {
    const body = check(balanceUpdateBody, await readJsonBody(request, bodyBytesMax));
    const update: BalanceUpdate = {
      accountId: body.accountId,
      amount: body.amount,
      reference: body.reference ?? null,
      idempotencyKey: idempotencyKeyOf(request),
      traceparent: traceparentOf(request),
    };
    answer(response, update, await lanes.submit(update));
  };
}

function answer(response: Response, update: BalanceUpdate, result: UpdateResult): void {
  if ('replayed' in result && result.replayed) response.setHeader('idempotent-replayed', 'true');
  if (result.outcome !== 'applied') {
    sendProblem(response, result.outcome satisfies ProblemCode, describe(update, result));
    return;
  }
  const { accountId, amount } = update;
  const { balance, version, createdAt } = result;
  const body = JSON.stringify({ accountId, amount, balance, version, eventId: eventId(accountId, version), createdAt });
  response.setHeader('content-type', 'application/json');
  response.setHeader('content-length', Buffer.byteLength(body));
  response.end(body);
}

/** The part of a refusal that is about this update. A replayed refusal reads like the first. */
function describe(update: BalanceUpdate, result: Exclude<UpdateResult, { outcome: 'applied' }>): ProblemDetails {
  const { accountId, amount } = update;
  switch (result.outcome) {
    case 'insufficient_funds':
    case 'balance_out_of_range': {
      const { balance, version } = result;
      const detail =
        result.outcome === 'insufficient_funds'
          ? `The balance is ${balance}: with the overdraft limit it does not cover a debit of ${-amount}.`
          : `The balance is ${balance}: with ${amount} it would leave the range.`;
      return { detail, accountId, balance, version };
    }
    case 'account_not_found':
      return { detail: 'Create it first: POST /v1/accounts.', accountId };
    case 'account_frozen':
      return { detail: 'It takes no updates until it is open again: PATCH /v1/accounts/{id}.', accountId };
    case 'idempotency_key_reused':
      return { detail: 'Its amount or reference was different. Use a new key for a new update.', accountId };
    case 'outcome_unknown':
      return {
        detail: update.idempotencyKey
          ? 'Send it again under the same Idempotency-Key: it takes effect at most once.'
          : 'A repeat may double it: compare the entries of the account first, and send an Idempotency-Key next time.',
        accountId,
      };
    case 'unavailable':
    case 'internal':
      return { detail: 'Nothing was changed.', accountId };
    default:
      return { accountId };
  }
}
