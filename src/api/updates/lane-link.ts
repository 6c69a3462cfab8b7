// The connection of a lane to PostgreSQL: the one statement that goes over it, and what a failure of it means.
import { type Client, DatabaseError, destroyClient, openClient } from '../../shared/database.ts';
import type { Logger } from '../../shared/logging.ts';
import type { BalanceUpdate, UpdateResult } from './balance-update.ts';

const APPLY = {
  name: 'apply_balance_updates',
  text: 'SELECT item, outcome, replayed, balance, version, created_at FROM apply_balance_updates($1, $2, $3, $4, $5, $6, $7)',
};

export interface AppliedRow {
  item: number;
  outcome: UpdateResult['outcome'];
  replayed: boolean;
  balance: number;
  version: number;
  created_at: Date;
}

/** The connection of a lane: opened when first needed, replaced when in doubt. */
export function createLaneLink(options: { databaseUrl: string; statementTimeoutMs: number; log: Logger }) {
  let client: Client | undefined;

  function discard(): void {
    if (client) destroyClient(client); // never cancel: the statement may be committing
    client = undefined;
  }

  return {
    discard,

    /** Whether there is a connection to send on; opens one when there is none. */
    async ready(): Promise<boolean> {
      if (client) return true;
      const { databaseUrl, statementTimeoutMs, log } = options;
      try {
        const opened = await openClient(databaseUrl, 'api updates', {
          plans: 'indexed plans',
          statementTimeoutMs,
          warn: (sentence) => log.warn(sentence),
        });
        // The loss of an idle connection needs no action: the next batch opens another.
        const forget = () => {
          if (client === opened) client = undefined;
        };
        opened.on('error', forget);
        opened.on('end', forget);
        client = opened;
        return true;
      } catch (error) {
        log.warn({ err: error }, 'cannot connect to PostgreSQL');
        return false;
      }
    },

    /** One row for each update, item = its place from 1. A failure is for {@link effectOf} to judge. */
    async send(updates: readonly BalanceUpdate[]): Promise<AppliedRow[]> {
      if (!client) throw new Error('the connection was lost before sending');
      const result = await client.query<AppliedRow>({
        ...APPLY,
        values: [
          updates.map((update) => update.accountId),
          updates.map((update) => update.amount),
          updates.map((update) => update.reference),
          updates.map((update) => update.idempotencyKey),
          updates.map((update) => update.traceparent),
          updates.map((update) => update.actor),
          new Date().toISOString(),
        ],
      });
      return result.rows;
    },

    async close(): Promise<void> {
      await client?.end();
    },
  };
}

/**
 * By SQLSTATE alone: the severity is in the server's language.
 * - rolled back: the server undid the statement because of something in it
 * - refused: the server undid it for a reason that has nothing to do with the updates
 * - unknown: anything else; the statement may have been committed
 */
export function effectOf(error: unknown): 'rolled back' | 'refused' | 'unknown' {
  if (!(error instanceof DatabaseError) || !error.code) return 'unknown';
  if (error.code === QUERY_CANCELED) return 'refused'; // the server's timeout: no commit was begun
  const sqlClass = error.code.slice(0, 2);
  if (sqlClass === '22' || sqlClass === '23' || sqlClass === '40') return 'rolled back';
  // Connection, shutdown, system and internal errors can come with the end of the session, at any moment.
  return ['08', '57', '58', 'XX'].includes(sqlClass) ? 'unknown' : 'refused';
}

const QUERY_CANCELED = '57014';

/** A timeout, a lack of resources, or a read-only standby passes; anything else is a defect of the installation. */
export function refusalOf(error: unknown): 'unavailable' | 'internal' {
  const code = (error as DatabaseError).code ?? '';
  return /^(53|25|57)/.test(code) ? 'unavailable' : 'internal';
}

export function isTransient(error: unknown): boolean {
  return (error as DatabaseError).code?.startsWith('40') ?? false;
}
