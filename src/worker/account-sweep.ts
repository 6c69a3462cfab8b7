// Goes through all accounts of the ledger in bounded steps: once at the start, and again after a
// pause. It costs one index lookup per account, whatever the number of entries.
import type { Pool } from '../shared/database.ts';

/**
 * The pause is also at least this many times the duration of the last sweep, which worked at most
 * half of the time: 1 % of a core.
 */
const PAUSE_FACTOR = 50;

// From account to account by the primary key: the entries in between are not read.
const NEXT_ACCOUNTS = `
  WITH RECURSIVE next AS (
    (SELECT account_id, 1 AS place FROM ledger WHERE account_id > $1 ORDER BY account_id LIMIT 1)
    UNION ALL
    SELECT following.account_id, place + 1
    FROM next
    CROSS JOIN LATERAL (
      SELECT account_id FROM ledger WHERE ledger.account_id > next.account_id ORDER BY account_id LIMIT 1
    ) following
    WHERE place < $2
  )
  SELECT account_id AS "accountId" FROM next ORDER BY place`;

export class AccountSweep {
  completed = 0;
  readonly #pool: Pool;
  readonly #pauseMs: number;
  #behind = '';
  // Both of performance.now().
  #startedAtMs = 0;
  #dueAtMs = 0;
  #again = false;

  constructor(pool: Pool, pauseMs: number) {
    this.#pool = pool;
    this.#pauseMs = pauseMs;
  }

  /** 0 while a sweep is running. */
  dueInMs(): number {
    return Math.max(0, this.#dueAtMs - performance.now());
  }

  /** Starts a sweep at once; if one is running, another one follows it without a pause. */
  request(): void {
    if (this.dueInMs() > 0) this.#dueAtMs = 0;
    else this.#again = true;
  }

  /** The next accounts; fewer than the limit at the end of a sweep. Throws when the database fails; nothing is skipped. */
  async next(limit: number): Promise<string[]> {
    if (this.#behind === '') this.#startedAtMs = performance.now();
    const { rows } = await this.#pool.query<{ accountId: string }>(NEXT_ACCOUNTS, [this.#behind, limit]);
    const last = rows.at(-1);
    if (last && rows.length === limit) this.#behind = last.accountId;
    else this.#rest();
    return rows.map(({ accountId }) => accountId);
  }

  #rest(): void {
    this.completed += 1;
    const now = performance.now();
    const pauseMs = Math.max(this.#pauseMs, PAUSE_FACTOR * (now - this.#startedAtMs));
    this.#dueAtMs = this.#again ? now : now + pauseMs;
    this.#behind = '';
    this.#again = false;
  }
}
