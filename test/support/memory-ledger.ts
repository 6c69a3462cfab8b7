// A ledger in memory, for subscribers without servers: what it was asked is noted.
import type { BalanceEvent, EntriesPage, EntriesReader, Entry } from '../../src/client/events.ts';

/** Of an account that is credited with 1 again and again. */
export function creditOf(accountId: string, version: number, epoch = 1, previousEpoch = epoch): BalanceEvent {
  const amount = version === 0 ? 0 : 1;
  return {
    specversion: '1.0',
    id: `${accountId}:${version}:${epoch.toString(36)}`,
    source: '/highload-balance',
    type: version === 0 ? 'account.opened' : 'balance.credited',
    subject: accountId,
    time: '2026-11-23T19:43:56.550Z',
    datacontenttype: 'application/json',
    data: {
      ...{ accountId, version, epoch, asset: 'UNIT', amount, heldChange: 0, balance: version, held: 0 },
      ...(version > 0 && { previousEpoch }),
    },
  };
}

export class MemoryLedger implements EntriesReader {
  /** Pages, by account. */
  readonly asked: { accountId: string; cursor: string | undefined; limit: number }[] = [];
  readonly #lastOf: (accountId: string) => number;
  readonly #eventOf: (accountId: string, version: number) => BalanceEvent;
  readonly #answering: (accountId: string, cursor: string | undefined) => unknown;

  /** @param answering is called before each answer, and may fail. */
  constructor(
    lastOf: (accountId: string) => number,
    answering: (accountId: string, cursor: string | undefined) => unknown = () => {},
    eventOf: (accountId: string, version: number) => BalanceEvent = creditOf,
  ) {
    this.#lastOf = lastOf;
    this.#answering = answering;
    this.#eventOf = eventOf;
  }

  async readEntries(
    accountId: string,
    { limit, cursor }: { limit: number; cursor?: string | undefined },
  ): Promise<EntriesPage> {
    this.asked.push({ accountId, cursor, limit });
    await new Promise((resolve) => setImmediate(resolve));
    await this.#answering(accountId, cursor);
    const version = this.#lastOf(accountId);
    const below = Math.min(cursor === undefined ? version + 1 : Number(cursor), version + 1);
    const lowest = Math.max(0, below - limit);
    const entries = Array.from({ length: below - lowest }, (_, index) => this.#entryOf(accountId, below - 1 - index));
    return { accountId, version, ledgerVersion: version, entries, nextCursor: lowest > 0 ? String(lowest) : null };
  }

  /** Pages that were read to backfill an account. */
  pagesOf(id: string): number[] {
    return this.asked.flatMap(({ accountId, cursor, limit }) =>
      accountId === id && cursor !== undefined ? limit : [],
    );
  }

  #entryOf(accountId: string, version: number): Entry {
    const { id, type, time, data } = this.#eventOf(accountId, version);
    const { accountId: _, ...body } = data;
    return { eventId: id, type, ...body, createdAt: time, recordedAt: time };
  }
}
