// Turns the result of an operation into the body of an answer: the new state, or the problem
// document of its refusal.
import { AMOUNT_MAX } from '../../shared/balance.ts';
import { eventId } from '../../shared/change.ts';
import type { AppliedUpdate, Hold, ProblemDetails, TransferLeg } from '../../shared/contract.ts';
import type { ProblemCode } from '../../shared/problems.ts';
import { problemDocument } from '../http/problems.ts';
import type { HoldState, HoldTarget, LegResult, Operation, OperationResult } from '../updates/operation.ts';

export type Applied = Extract<OperationResult, { outcome: 'applied' }>;
export type Refused = Exclude<OperationResult, { outcome: 'applied' }>;

/** Of an operation that took effect: the leg with that number. */
export function appliedLeg({ legs }: Operation, result: Applied, number = 0): AppliedUpdate {
  const { accountId } = legs[number] as Operation['legs'][0];
  const { amount, balance, version, epoch, createdAt } = result.legs[number] as LegResult;
  return { accountId, amount, balance, version, eventId: eventId({ accountId, version, epoch }), createdAt };
}

/** The id of a transfer is that of its lowest debited leg. */
export function transferAnswer(operation: Operation, result: Applied) {
  const legs = operation.legs.map((_, number) => appliedLeg(operation, result, number));
  const [payer] = legs
    .filter(({ amount }) => amount < 0)
    .sort((one, other) => (one.accountId < other.accountId ? -1 : 1));
  const shown = legs.map(({ createdAt, ...leg }): TransferLeg => leg);
  const createdAt = legs
    .map((leg) => leg.createdAt)
    .sort()
    .at(-1) as string;
  return { transferId: payer?.eventId as string, legs: shown, createdAt };
}

/** The hold that an operation is about, as it is after it. */
export function holdOf({ legs, hold }: Operation, state: HoldState): Hold {
  const { expiresAt, createdAt, updatedAt, status, ...amounts } = state;
  return {
    accountId: legs[0].accountId,
    holdId: (hold as HoldTarget).holdId,
    status,
    ...amounts,
    expiresAt: expiresAt === null ? null : new Date(expiresAt).toISOString(),
    createdAt: new Date(createdAt).toISOString(),
    updatedAt: new Date(updatedAt).toISOString(),
  };
}

/** The problem of a refusal: its code, and what is about this operation. A replayed refusal reads like the first. */
export function problemOf(operation: Operation, result: Refused): [ProblemCode, ProblemDetails] {
  const { outcome } = result;
  const number = 'leg' in result ? result.leg : 0;
  const { accountId } =
    outcome === 'idempotency_key_reused'
      ? { accountId: operation.keyAccountId }
      : (operation.legs[number] as Operation['legs'][0]);
  if ('found' in result) {
    const { balance, version } = result.found;
    const detail = detailOfDecline(operation.kind, outcome, result.found);
    return [outcome, { detail, accountId, balance, version }];
  }
  const hold = 'hold' in result && result.hold ? { hold: holdOf(operation, result.hold) } : {};
  const detail = DETAILS[outcome];
  if (outcome === 'outcome_unknown') return [outcome, { detail: adviceOf(operation), accountId }];
  return [outcome, { ...(detail && { detail }), accountId, ...hold }];
}

/** One result of a bulk request: the fields of the single answer, or of its problem document. */
export function resultOf(operation: Operation, result: OperationResult, body: (result: Applied) => object): object {
  const replayed = 'replayed' in result && result.replayed;
  if (result.outcome === 'applied') return { status: 200, replayed, ...body(result) };
  return { ...problemDocument(...problemOf(operation, result)), replayed };
}

const DETAILS: Partial<Record<ProblemCode, string>> = {
  idempotency_key_reused: 'Its request was different. Use a new key for a new request.',
  hold_exists: 'Another request placed a hold with this id. Choose a new id for a new hold.',
  account_not_found: 'Create it first: POST /v1/accounts.',
  account_closed: 'A closed account cannot be reopened: open another account.',
  account_frozen: 'It takes no updates until it is open again: PATCH /v1/accounts/{id}.',
  asset_mismatch: 'All accounts of a transfer must have the same asset, and this one has another.',
  hold_not_found: 'Place it first: POST /v1/accounts/{id}/holds.',
  hold_closed: 'It has already been captured or released.',
  hold_expired: 'Place another one.',
  not_reversible:
    'Only a change of money that is not itself a reversal can be reversed; a transfer is reversed by its transferId.',
  already_reversed: 'Nothing is left of it.',
  rate_limited:
    'It would have been declined, but you have reached the limit of declines that are remembered. Retry it later with the same key.',
  unavailable: 'Nothing was changed.',
  internal: 'Nothing was changed.',
};

function detailOfDecline(kind: Operation['kind'], outcome: string, { amount, balance, version }: LegResult): string {
  const after = kind === 'atomic' ? ', after the updates before it in the request,' : '';
  switch (outcome) {
    case 'insufficient_funds':
      return isOfHold(kind)
        ? `The balance is ${balance}: with the overdraft limit, and without what is held, it does not cover a hold of ${amount}.`
        : `The balance is ${balance}: with the overdraft limit, and without what is held${after || ','} it does not cover a debit of ${-amount}.`;
    case 'max_balance_exceeded':
      return `The balance is ${balance}: with ${amount}${after} it would be above the maxBalance of the account.`;
    case 'balance_out_of_range':
      if (isOfHold(kind)) return `With ${amount} more than ${AMOUNT_MAX} would be held.`;
      return `The balance is ${balance}: with ${amount}${after} it would be out of range.`;
    case 'version_mismatch':
      return kind === 'atomic'
        ? `The account is at version ${version}, and each update of the request before it adds 1: read it, and decide again.`
        : `The account is at version ${version}: read it, and decide again.`;
    case 'hold_amount_exceeded':
      return 'The hold does not have that much left. Read it, and send a smaller amount.';
    default:
      return 'Less than that is left of the change. Send a smaller amount, or none for the rest.';
  }
}

const isOfHold = (kind: Operation['kind']) => kind === 'hold' || kind === 'hold_change';

function adviceOf({ kind, idempotencyKey }: Operation): string {
  if (kind === 'hold') return 'Retry it: with the same hold id it takes effect at most once.';
  return idempotencyKey !== null
    ? 'Retry it with the same Idempotency-Key: it takes effect at most once.'
    : 'A retry may apply it twice: check the entries of the account first, and send an Idempotency-Key next time.';
}
