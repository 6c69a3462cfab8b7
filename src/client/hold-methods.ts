// Holds: money set aside under an id that the client chooses, then captured, released or left to
// expire.
import type {
  CaptureAnswer,
  Hold,
  HoldAnswer,
  HoldCapture,
  HoldChange,
  HoldRelease,
  HoldsPage,
  NewHold,
} from '../shared/contract.ts';
import { checkNames, type Names } from './arguments.ts';
import {
  CALL_OPTIONS,
  type CallOptions,
  KEYED_CALL_OPTIONS,
  type KeyedCallOptions,
  TRACED_CALL_OPTIONS,
  type TracedCallOptions,
} from './call-options.ts';
import type { Applied } from './once.ts';
import { itemsOf, PAGE_OPTIONS, type PageOptions } from './pages.ts';
import { accountPath, get, holdPath, patch, post, queryOf } from './paths.ts';
import type { Sender } from './sender.ts';

export interface HoldFilter {
  status?: Hold['status'] | undefined;
}

/** The id of each is that of the account. */
export interface HoldMethods {
  /**
   * Sets money aside, or returns the current hold if the same request already placed it: its id is
   * its idempotency key. `insufficient_funds`: less is available. `hold_exists`: the id was used
   * for another hold.
   */
  placeHold(id: string, hold: NewHold, options?: TracedCallOptions): Promise<Hold>;
  /**
   * The current state of a hold; one that is due may briefly still be active. `hold_not_found` if
   * there is none.
   */
  readHold(id: string, holdId: string, options?: CallOptions): Promise<Hold>;
  /** A page of the holds of an account in order of id, of all or of those with one status. */
  listHolds(id: string, page?: PageOptions & HoldFilter, options?: CallOptions): Promise<HoldsPage>;
  /** The holds of an account in order of id, page by page as they are read. The options hold for each page. */
  holds(id: string, filter?: HoldFilter, options?: CallOptions): AsyncGenerator<Hold, void, undefined>;
  /**
   * Captures `amount` of the hold, or all that is left. The rest is released, unless `final` is
   * false. With `to` another account gets it. `hold_closed`, `hold_expired`: nothing is left, and
   * the error's `hold` is the hold as it is. `hold_amount_exceeded`: less is left than this.
   */
  captureHold(
    id: string,
    holdId: string,
    capture?: HoldCapture,
    options?: KeyedCallOptions,
  ): Promise<Applied<CaptureAnswer>>;
  /**
   * Releases `amount` of the hold, or all that is left. Fails as {@link Client.captureHold} does.
   *
   */
  releaseHold(
    id: string,
    holdId: string,
    release?: HoldRelease,
    options?: KeyedCallOptions,
  ): Promise<Applied<HoldAnswer>>;
  /**
   * Changes how much is held, or until when. `amount` is the new total, including what was captured
   * and released; more than is available is `insufficient_funds`. Else it fails as {@link
   * Client.captureHold} does.
   */
  changeHold(id: string, holdId: string, change: HoldChange, options?: KeyedCallOptions): Promise<Applied<HoldAnswer>>;
}

const NOTES = { reference: true, metadata: true } as const;
const NEW_HOLD = {
  ...{ holdId: true, amount: true, expiresInSeconds: true },
  ...NOTES,
} as const satisfies Names<NewHold>;
const CAPTURE = { amount: true, final: true, to: true, ...NOTES } as const satisfies Names<HoldCapture>;
const RELEASE = { amount: true, ...NOTES } as const satisfies Names<HoldRelease>;
const CHANGE = { amount: true, expiresInSeconds: true, ...NOTES } as const satisfies Names<HoldChange>;
const FILTER = { status: true } as const satisfies Names<HoldFilter>;
const PAGE = { ...PAGE_OPTIONS, ...FILTER };

export function holdMethods(sender: Sender): HoldMethods {
  async function listHolds(id: string, page: PageOptions & HoldFilter = {}, options: CallOptions = {}) {
    checkNames('listHolds', ['page', page, PAGE], ['options', options, CALL_OPTIONS]);
    return sender.repeatable<HoldsPage>(get(`${accountPath(id)}/holds${queryOf(page)}`, 'holds'), options);
  }

  return {
    async placeHold(id, hold, options = {}) {
      checkNames('placeHold', ['hold', hold, NEW_HOLD], ['options', options, TRACED_CALL_OPTIONS]);
      return (await sender.once<Hold>(post(`${accountPath(id)}/holds`, hold, 'holdId'), options, id)).body;
    },
    async readHold(id, holdId, options = {}) {
      checkNames('readHold', ['options', options, CALL_OPTIONS]);
      return sender.repeatable(get(holdPath(id, holdId), 'holdId'), options);
    },
    listHolds,
    holds(id, filter = {}, options = {}) {
      checkNames('holds', ['filter', filter, FILTER], ['options', options, CALL_OPTIONS]);
      return itemsOf(
        (page) => listHolds(id, { ...filter, ...page }, options),
        ({ holds }) => holds,
      );
    },
    async captureHold(id, holdId, capture = {}, options = {}) {
      checkNames('captureHold', ['capture', capture, CAPTURE], ['options', options, KEYED_CALL_OPTIONS]);
      return sender.keyed(post(`${holdPath(id, holdId)}/capture`, capture, 'hold'), options, id);
    },
    async releaseHold(id, holdId, release = {}, options = {}) {
      checkNames('releaseHold', ['release', release, RELEASE], ['options', options, KEYED_CALL_OPTIONS]);
      return sender.keyed(post(`${holdPath(id, holdId)}/release`, release, 'hold'), options, id);
    },
    async changeHold(id, holdId, change, options = {}) {
      checkNames('changeHold', ['change', change, CHANGE], ['options', options, KEYED_CALL_OPTIONS]);
      return sender.keyed(patch(holdPath(id, holdId), change, 'hold'), options, id);
    },
  };
}
