// The history of an account: its ledger entries, as items, pages and a file; past balances; and its
// proof.
import type {
  AccountVerification,
  ChainHead,
  ChainSegment,
  ChainSegmentsPage,
  ChangeType,
  EntriesPage,
  Entry,
  PastBalance,
} from '../shared/contract.ts';
import { checkNames, type Names } from './arguments.ts';
import { CALL_OPTIONS, type CallOptions } from './call-options.ts';
import { downloadEntries, type ExportedEntries, type ExportFormat } from './exported-entries.ts';
import { itemsOf, PAGE_OPTIONS, type PageOptions } from './pages.ts';
import { accountPath, get, queryOf } from './paths.ts';
import type { Sender } from './sender.ts';

export interface EntryFilter {
  /** Entries created at or after it. */
  from?: Date | undefined;
  /** Entries created before it. */
  to?: Date | undefined;
  direction?: 'credit' | 'debit' | undefined;
  type?: ChangeType | undefined;
  /** Entries with exactly this one; found by index, as those of a transfer or a hold are. */
  reference?: string | undefined;
  transferId?: string | undefined;
  holdId?: string | undefined;
}

export interface EntriesExport extends EntryFilter {
  format: ExportFormat;
}

/** A moment up to now, or a version up to the account's. */
export type PastMoment = { at: Date; version?: undefined } | { version: number; at?: undefined };

export interface HistoryMethods {
  /**
   * A page of the ledger, newest first. With a filter it may hold few entries or none although more
   * pages follow.
   */
  readEntries(id: string, page?: PageOptions & EntryFilter, options?: CallOptions): Promise<EntriesPage>;
  /**
   * The ledger of an account, newest first, page by page as it is read: from the newest version up to which it is
   * complete, without a gap. The options hold for each page.
   */
  entries(id: string, filter?: EntryFilter, options?: CallOptions): AsyncGenerator<Entry, void, undefined>;
  /**
   * The ledger as a file, oldest first. Resolves when it begins; `deadlineMs` is the time until then. Read its `body` to
   * the end or destroy it: until then it occupies one of the client's connections.
   */
  exportEntries(id: string, entries: EntriesExport, options?: CallOptions): Promise<ExportedEntries>;
  /** The balance after the last change up to a moment, or after a version. */
  readPastBalance(id: string, moment: PastMoment, options?: CallOptions): Promise<PastBalance>;
  /**
   * The newest hash of the ledger. Keep it elsewhere: it later proves that no entry up to it was
   * rewritten.
   */
  readChainHead(id: string, options?: CallOptions): Promise<ChainHead>;
  /** A page of the hashes of the ledger, oldest first, with everything needed to recompute them. */
  readChainSegments(id: string, page?: PageOptions, options?: CallOptions): Promise<ChainSegmentsPage>;
  /** The hashes of the ledger, oldest first, page by page as they are read. The options hold for each page. */
  chainSegments(id: string, options?: CallOptions): AsyncGenerator<ChainSegment, void, undefined>;
  /**
   * Has the service check the whole history of an account of up to 100,000 changes. Check
   * `verified`.
   */
  verifyAccount(id: string, options?: CallOptions): Promise<AccountVerification>;
}

const FILTER = {
  ...{ from: true, to: true, direction: true, type: true, reference: true, transferId: true, holdId: true },
} as const satisfies Names<EntryFilter>;
const PAGE = { ...PAGE_OPTIONS, ...FILTER };
const EXPORT = { format: true, ...FILTER } as const satisfies Names<EntriesExport>;
const MOMENT = { at: true, version: true } as const satisfies Names<PastMoment>;

export function historyMethods(sender: Sender): HistoryMethods {
  async function readEntries(id: string, page: PageOptions & EntryFilter = {}, options: CallOptions = {}) {
    checkNames('readEntries', ['page', page, PAGE], ['options', options, CALL_OPTIONS]);
    return sender.repeatable<EntriesPage>(get(`${accountPath(id)}/entries${queryOf(page)}`, 'entries'), options);
  }

  async function readChainSegments(id: string, page: PageOptions = {}, options: CallOptions = {}) {
    checkNames('readChainSegments', ['page', page, PAGE_OPTIONS], ['options', options, CALL_OPTIONS]);
    const path = `${accountPath(id)}/chain-segments${queryOf(page)}`;
    return sender.repeatable<ChainSegmentsPage>(get(path, 'segments'), options);
  }

  return {
    readEntries,
    entries(id, filter = {}, options = {}) {
      checkNames('entries', ['filter', filter, FILTER], ['options', options, CALL_OPTIONS]);
      return itemsOf(
        (page) => readEntries(id, { ...filter, ...page }, options),
        ({ entries }) => entries,
      );
    },
    async exportEntries(id, entries, options = {}) {
      checkNames('exportEntries', ['entries', entries, EXPORT], ['options', options, CALL_OPTIONS]);
      const path = `${accountPath(id)}/entries/export${queryOf(entries)}`;
      return sender.download((http, over) => downloadEntries(http, path, over, options.signal), options);
    },
    async readPastBalance(id, moment, options = {}) {
      checkNames('readPastBalance', ['moment', moment, MOMENT], ['options', options, CALL_OPTIONS]);
      return sender.repeatable(get(`${accountPath(id)}/balance${queryOf(moment)}`, 'balance'), options);
    },
    async readChainHead(id, options = {}) {
      checkNames('readChainHead', ['options', options, CALL_OPTIONS]);
      return sender.repeatable(get(`${accountPath(id)}/chain-head`, 'hash'), options);
    },
    readChainSegments,
    chainSegments(id, options = {}) {
      checkNames('chainSegments', ['options', options, CALL_OPTIONS]);
      return itemsOf(
        (page) => readChainSegments(id, page, options),
        ({ segments }) => segments,
      );
    },
    async verifyAccount(id, options = {}) {
      checkNames('verifyAccount', ['options', options, CALL_OPTIONS]);
      return sender.repeatable(get(`${accountPath(id)}/verification`, 'verified'), options);
    },
  };
}
