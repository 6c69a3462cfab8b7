// Reports changes that this process had answered and the database lost: after a failover to a
// standby that lacked them, or a restore. Checks each second whether the epoch rose, even while
// nothing is changed.
import { findLostVersions, type LostVersion, SEEN_PAGE_MAX, type SeenVersion } from '../../shared/cut-history.ts';
import type { Pool } from '../../shared/database.ts';
import type { Logger } from '../../shared/logging.ts';
import type { AnswersMemory } from './answers-memory.ts';

const CHECK_MS = 1000;
/** Accounts that one log line names, about 6 kB. */
const NAMED_PER_LINE = 50;
/** Accounts that are named after one rise of the epoch; all are counted. */
const NAMED_MAX = 1000;
/** Epochs that are compared when the database answers again; it answers before another can rise. */
const DUE_MAX = 4;
/** Consumers take its changes for those of an older history, until an epoch begins. */
const FALLEN_ADVICE = 'run highload-balance restored, and see "When the database lost commits" in docs/recover.md';
const ADVICE = 'see "When the database lost commits" in docs/recover.md';

export interface LostAnswersWatch {
  /** Accounts whose last answered change was found to be lost, since the start of the process. */
  lost(): number;
  stop(): Promise<void>;
}

/** @param pool its role may call current_epoch() and last_shared_version(). */
export function startLostAnswersWatch(pool: Pool, memory: AnswersMemory, log: Logger): LostAnswersWatch {
  let lost = 0;
  let stopped = false;
  let timer: NodeJS.Timeout | undefined;
  let looking = Promise.resolve();
  /** Once is not enough: a connection to a server that is about to be stopped may have answered. */
  let isBelow = false;
  let due: { epoch: number; seen: SeenVersion[] }[] = [];

  async function look(): Promise<void> {
    if (!memory.isEmpty || due.length > 0) {
      try {
        const epoch =
          (await pool.query<{ epoch: number }>('SELECT current_epoch() AS epoch')).rows[0]?.epoch ?? memory.epoch;
        seeEpoch(epoch);
        due = due.concat(memory.takePast()).slice(-DUE_MAX);
        for (let next = due[0]; next && !stopped; next = due[0]) {
          lost += report(next.epoch, next.seen.length, await compare(next.seen));
          due.shift();
        }
      } catch (error) {
        if (due.length > 0)
          log.warn({ err: error }, 'cannot compare earlier answers with the database; the next attempt is in a second');
      }
    }
    plan();
  }

  function seeEpoch(epoch: number): void {
    const wasBelow = isBelow;
    isBelow = epoch < memory.epoch;
    if (isBelow && wasBelow) {
      memory.fallTo(epoch);
      isBelow = false;
      log.error({ epoch, advice: FALLEN_ADVICE }, 'the epoch fell: the database is an old primary again');
    } else memory.see(epoch);
  }

  async function compare(seen: readonly SeenVersion[]): Promise<LostVersion[]> {
    const client = await pool.connect();
    try {
      const found: LostVersion[] = [];
      for (let first = 0; first < seen.length; first += SEEN_PAGE_MAX) {
        found.push(...(await findLostVersions(client, seen.slice(first, first + SEEN_PAGE_MAX))));
      }
      return found;
    } finally {
      client.release();
    }
  }

  /** @returns how many were lost. */
  function report(epoch: number, compared: number, found: readonly LostVersion[]): number {
    if (found.length === 0) {
      log.info({ epoch, compared }, 'the epoch rose; every change that was answered is in the database');
      return 0;
    }
    const named = found.slice(0, NAMED_MAX);
    for (let first = 0; first < named.length; first += NAMED_PER_LINE) {
      const accounts = named.slice(first, first + NAMED_PER_LINE);
      log.error({ lost: accounts.map(nameOf) }, 'changes that were answered are not in the database');
    }
    log.error(
      { epoch, compared, accounts: found.length, named: named.length, advice: ADVICE },
      'the database lost commits: after a failover or a restore it continues from an older state',
    );
    return found.length;
  }

  function plan(): void {
    if (!stopped) timer = setTimeout(() => (looking = look()), CHECK_MS);
  }

  plan();
  return {
    lost: () => lost,
    async stop() {
      stopped = true;
      clearTimeout(timer);
      await looking;
    },
  };
}

function nameOf({ accountId, version, epoch, sharedVersion }: LostVersion) {
  return { accountId, firstVersion: sharedVersion + 1, lastVersion: version, epoch };
}
