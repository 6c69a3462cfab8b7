// Extends the hash chains of the ledger in the background. It learns of accounts with new entries
// in two ways:
//   notified  the consumer reports the accounts whose entries it recorded;
//   sweep     all accounts are checked at the start and from time to time, for unreported entries:
//             recorded before there were chains, by an older release, or by a worker that was
//             killed before it chained them.
// Safe to run many and to kill at any instant: a step is one statement, only one runs at a time in
// the whole fleet, and the next one continues from what is in the table.
import { setTimeout as delay } from 'node:timers/promises';
import { backOffMs } from '../shared/back-off.ts';
import type { Pool } from '../shared/database.ts';
import type { Running } from '../shared/lifecycle.ts';
import type { Logger } from '../shared/logging.ts';
import { createWakeUp } from '../shared/wake-up.ts';
import { AccountSweep } from './account-sweep.ts';

const LIMITS = {
  /** In one step, which then takes about 100 ms. */
  stepEntries: 10_000,
  stepAccounts: 5000,
  /** Reported accounts that were not processed yet; a sweep finds those that do not fit. */
  waitingAccounts: 100_000,
  /**
   * After a step, so that what comes in the meantime shares the next one: a step of few entries costs more than they do. An
   * entry has its hash within a second. After a longer step the pause is as long.
   */
  pauseMs: 500,
  /** Between two sweeps, at least. */
  sweepPauseMs: 10 * 60_000,
};
const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 30_000;
/** How long a stop may take to chain what is waiting. */
const STOP_TIMEOUT_MS = 3000;

/** Since the start of the process. */
export interface ChainCounts {
  /** Entries that are in a segment now. */
  hashed: number;
  /** Steps that failed because of the database, and were tried again. */
  retries: number;
  /** Times that all accounts of the ledger were gone through. */
  sweeps: number;
}

export interface Chainer extends Running {
  readonly counts: Readonly<ChainCounts>;
  /** Reports that an entry of the account was recorded. */
  tell(accountId: string): void;
}

export interface ChainerOptions {
  pool: Pool;
  log: Logger;
  limits?: Partial<typeof LIMITS>;
}

// Prepared once a connection: a step with few entries would spend a tenth of its time on planning this.
const EXTEND = { name: 'extend_ledger_chain', text: 'SELECT hashed, unfinished FROM extend_ledger_chain($1, $2)' };

/** The database does not have to be there. */
export function startChainer({ pool, log, ...options }: ChainerOptions): Chainer {
  const limits = { ...LIMITS, ...options.limits };
  const counts: ChainCounts = { hashed: 0, retries: 0, sweeps: 0 };
  const sweep = new AccountSweep(pool, limits.sweepPauseMs);
  const waiting = new Set<string>();
  const stopping = new AbortController();
  const news = createWakeUp();

  async function step(): Promise<void> {
    const accounts: string[] = [];
    for (const account of waiting) {
      if (accounts.length === limits.stepAccounts) break;
      accounts.push(account);
      waiting.delete(account); // reported again from here on, it has something new
    }
    if (accounts.length === 0) return;
    try {
      const { rows } = await pool.query<{ hashed: number; unfinished: string[] }>({
        ...EXTEND,
        values: [accounts, limits.stepEntries],
      });
      for (const { hashed, unfinished } of rows) {
        counts.hashed += hashed;
        for (const account of unfinished) waiting.add(account);
      }
    } catch (error) {
      for (const account of accounts) waiting.add(account);
      throw error;
    }
  }

  async function sweepAndStep(): Promise<void> {
    const room = limits.stepAccounts - waiting.size;
    if (sweep.dueInMs() === 0 && room > 0) for (const account of await sweep.next(room)) waiting.add(account);
    await step();
    counts.sweeps = sweep.completed;
  }

  async function run(): Promise<void> {
    const { signal } = stopping;
    for (let failures = 0; !signal.aborted; ) {
      const startedAtMs = performance.now();
      let pauseMs: number;
      try {
        await sweepAndStep();
        failures = 0;
        pauseMs = Math.max(limits.pauseMs, performance.now() - startedAtMs);
      } catch (error) {
        failures += 1;
        counts.retries += 1;
        log.error({ err: error, failures }, 'extending the hash chains failed, retrying');
        pauseMs = backOffMs(failures, RETRY_MIN_MS, RETRY_MAX_MS);
      }
      await delay(pauseMs, undefined, { signal }).catch(() => {});
      if (waiting.size === 0 && !signal.aborted) await news.wokenOr(sweep.dueInMs());
    }
    try {
      for (const deadline = performance.now() + STOP_TIMEOUT_MS; waiting.size > 0 && performance.now() < deadline; )
        await step();
    } catch (error) {
      log.error({ err: error }, 'extending the hash chains failed; the next worker will do it');
    }
  }

  const over = run();
  return {
    counts,
    tell(accountId) {
      if (waiting.size < limits.waitingAccounts) waiting.add(accountId);
      else sweep.request();
      news.wake();
    },
    stop() {
      stopping.abort();
      news.wake();
      return over;
    },
  };
}
