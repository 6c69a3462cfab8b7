// Calls that move money: updates, transfers, reversals. Each is sent with an idempotency key.
import type {
  AppliedUpdate,
  BalanceUpdate,
  BulkTransfer,
  BulkUpdate,
  CaptureAnswer,
  NewReversal,
  NewTransfer,
  PastTransfer,
  Reversal,
  Transfer,
} from '../shared/contract.ts';
import { checkNames, type Names } from './arguments.ts';
import type { AtomicUpdate } from './atomic.ts';
import {
  CALL_OPTIONS,
  type CallOptions,
  KEYED_CALL_OPTIONS,
  type KeyedCallOptions,
  TRACED_CALL_OPTIONS,
  type TracedCallOptions,
} from './call-options.ts';
import type { Applied, BulkResult } from './once.ts';
import { get, post, transferPath } from './paths.ts';
import type { Sender } from './sender.ts';

/** Each update takes effect by itself; its `idempotencyKey` is its own. */
export interface SeparateCallOptions extends TracedCallOptions {
  atomic?: false | undefined;
}

/** All updates of a call take effect or none, with one key: given in the options, or generated. */
export interface AtomicCallOptions extends KeyedCallOptions {
  atomic: true;
}

/** What can be reversed: a change or a transfer, by its answer or by its id. A capture with `to` is a transfer. */
export type Reversible = string | AppliedUpdate | Transfer | CaptureAnswer;

export interface MoneyMethods {
  /**
   * Credits or debits. A refusal such as `insufficient_funds` is thrown: what was not paid never looks like success.
   * With `expectedVersion` it is declined as `version_mismatch` when the account has changed; a debit with `upTo` takes
   * what is available, and the answer's `amount` says how much.
   */
  updateBalance(update: BalanceUpdate, options?: KeyedCallOptions): Promise<Applied>;
  /**
   * 1 to 1,000 independent updates in one request, each with its own result, in order. Refused and
   * unknown ones are results. Rejects only when no update can have taken effect.
   */
  updateBalances(updates: readonly BulkUpdate[], options?: SeparateCallOptions): Promise<BulkResult[]>;
  /**
   * With `atomic`, all of 1 to 1,000 updates take effect or none, with the key of the call; an
   * account may occur several times. Either every result is `ok`, or none is: the one that failed
   * says why, the others are `linked_failed`. If the outcome is unknown, all are `outcome_unknown`
   * with that key.
   */
  updateBalances(updates: readonly AtomicUpdate[], options: AtomicCallOptions): Promise<BulkResult[]>;
  /**
   * Moves money between accounts of one asset, all legs or none. Refused as an update is, or as
   * `asset_mismatch`; the error's `accountId` is the account that caused it.
   */
  transfer(transfer: NewTransfer, options?: KeyedCallOptions): Promise<Applied<Transfer>>;
  /**
   * 1 to 1,000 transfers in one request, with at most 2,000 legs in total; otherwise like {@link
   * Client.updateBalances}.
   */
  transfers(transfers: readonly BulkTransfer[], options?: TracedCallOptions): Promise<BulkResult<Transfer>[]>;
  /** A transfer as it took effect, with its notes; `transfer_not_found` where there is none. */
  readTransfer(transferId: string, options?: CallOptions): Promise<PastTransfer>;
  /**
   * Reverses a change or a transfer: `amount` of it, or all that is left; a transfer of more than
   * two legs only as a whole. `not_reversible`: it moved nothing, is a reversal itself, or is one
   * leg of a transfer. `already_reversed`, `reversal_exceeds`: nothing is left, or less than this.
   * `insufficient_funds`: the receiver has spent it.
   */
  reverse(of: Reversible, reversal?: Omit<NewReversal, 'of'>, options?: KeyedCallOptions): Promise<Applied<Reversal>>;
}

const NOTES = { reference: true, metadata: true } as const;
const UPDATE = {
  ...{ accountId: true, amount: true, expectedVersion: true, upTo: true },
  ...NOTES,
} as const satisfies Names<BalanceUpdate>;
const BULK_UPDATE = { ...UPDATE, idempotencyKey: true } as const satisfies Names<BulkUpdate>;
const BULK_OPTIONS = { ...KEYED_CALL_OPTIONS, atomic: true } as const satisfies Names<AtomicCallOptions>;
const TRANSFER = {
  ...{ from: true, to: true, amount: true, legs: [{ accountId: true, amount: true }] },
  ...NOTES,
} as const satisfies Names<NewTransfer>;
const BULK_TRANSFER = { ...TRANSFER, idempotencyKey: true } as const satisfies Names<BulkTransfer>;
const REVERSAL = { amount: true, ...NOTES } as const satisfies Names<Omit<NewReversal, 'of'>>;

export function moneyMethods(sender: Sender): MoneyMethods {
  return {
    async updateBalance(update, options = {}) {
      checkNames('updateBalance', ['update', update, UPDATE], ['options', options, KEYED_CALL_OPTIONS]);
      return sender.keyed(post('/v1/balance-updates', update, 'eventId'), options, update.accountId);
    },
    async updateBalances(
      updates: readonly (BulkUpdate | AtomicUpdate)[],
      options: SeparateCallOptions | AtomicCallOptions = {},
    ) {
      checkNames('updateBalances', ['updates', updates, [BULK_UPDATE]], ['options', options, BULK_OPTIONS]);
      if (options.atomic) return sender.atomic(updates, options);
      if ('idempotencyKey' in options && options.idempotencyKey !== undefined) {
        throw new TypeError(
          'updateBalances(): options.idempotencyKey is for atomic updates. Give each update its own idempotencyKey.',
        );
      }
      return sender.bulk(
        { path: '/v1/balance-updates/bulk', parts: 'updates', resultHas: 'eventId' },
        updates,
        options,
      );
    },
    async transfer(transfer, options = {}) {
      checkNames('transfer', ['transfer', transfer, TRANSFER], ['options', options, KEYED_CALL_OPTIONS]);
      return sender.keyed(post('/v1/transfers', transfer, 'transferId'), options);
    },
    async transfers(transfers, options = {}) {
      checkNames('transfers', ['transfers', transfers, [BULK_TRANSFER]], ['options', options, TRACED_CALL_OPTIONS]);
      return sender.bulk(
        { path: '/v1/transfers/bulk', parts: 'transfers', resultHas: 'transferId' },
        transfers,
        options,
      );
    },
    async readTransfer(transferId, options = {}) {
      checkNames('readTransfer', ['options', options, CALL_OPTIONS]);
      return sender.repeatable(get(transferPath(transferId), 'transferId'), options);
    },
    async reverse(of, reversal = {}, options = {}) {
      checkNames('reverse', ['reversal', reversal, REVERSAL], ['options', options, KEYED_CALL_OPTIONS]);
      return sender.keyed(post('/v1/reversals', { ...reversal, of: idOf(of) }, 'reverses'), options);
    },
  };
}

/** A transfer is reversed as a whole, so its id comes before that of a change. */
function idOf(of: Reversible): string | undefined {
  if (typeof of === 'string') return of;
  const { transferId, eventId }: { transferId?: string | undefined; eventId?: string } = of;
  return transferId ?? eventId;
}
