// Lists that come page by page.
import type { Names } from './arguments.ts';

export interface PageOptions {
  /** Entries, accounts, holds or segments of one page, 1 to 1,000; 100 unless given. */
  limit?: number | undefined;
  /** `nextCursor` of the page before; the first page unless given. */
  cursor?: string | undefined;
}

export const PAGE_OPTIONS = { limit: true, cursor: true } as const satisfies Names<PageOptions>;

const PAGE_MAX = 1000;

/** Reads the next page when the items of the one before were taken. */
export async function* itemsOf<Page extends { nextCursor: string | null }, Item>(
  read: (page: PageOptions) => Promise<Page>,
  itemsIn: (page: Page) => readonly Item[],
): AsyncGenerator<Item, void, undefined> {
  for (let cursor: string | null | undefined; cursor !== null; ) {
    const page: Page = await read({ limit: PAGE_MAX, cursor });
    yield* itemsIn(page);
    cursor = page.nextCursor;
  }
}
