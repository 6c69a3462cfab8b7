// The connection of a lane to PostgreSQL: the one statement that goes over it, and what a failure of it means.
import { type Client, DatabaseError, destroyClient, openClient } from '../../shared/database.ts';
import type { Logger } from '../../shared/logging.ts';
import { APPLY, type ApplyAnswer, parametersOf, resultsOf } from './batch.ts';
import type { Operation, OperationResult } from './operation.ts';

/** The connection of a lane: opened when first needed, replaced when in doubt. */
export function createLaneLink(options: { databaseUrl: string; statementTimeoutMs: number; log: Logger }) {
  let client: Client | undefined;

  function discard(): void {
    if (client) destroyClient(client); // never cancel: the statement may be committing
    client = undefined;
  }

  return {
    discard,

    /** Whether there is a connection now. */
    isConnected: () => client !== undefined,

    /** Whether there is a connection to send on; opens one when there is none. */
    async ready(): Promise<boolean> {
      if (client) return true;
      const { databaseUrl, statementTimeoutMs, log } = options;
      try {
        const opened = await openClient(databaseUrl, 'api updates', {
          plans: 'fixed plans',
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

    /** A result for each operation, in order. A failure is for {@link effectOf} to judge. */
    async send(operations: readonly Operation[]): Promise<OperationResult[]> {
      if (!client) throw new Error('the connection was lost before sending');
      const { rows } = await client.query<ApplyAnswer>({ ...APPLY, values: parametersOf(operations) });
      return resultsOf(operations, rows[0] as ApplyAnswer);
    },

    async close(): Promise<void> {
      await client?.end();
    },
  };
}

/** Something in the updates: the data, a constraint, or a conflict with other transactions. Not 40003, which is unknown. */
const ROLLED_BACK = ['22', '23', '40000', '40001', '40002', '40P01'];
/**
 * Nothing in the updates: the server, its schema or a limit of it. Not 25P03, 25P04 and the rest of class 57, which end
 * the session; 53300 comes from servers and poolers that refuse a session.
 */
const REFUSED = [
  ...['0A', '21', '25001', '25006', '25P02', '26', '3D', '3F', '42', '53000', '53100', '53200', '53400'],
  ...['54', '55', '57014', 'P0'],
];
/** Refusals that pass: a timeout, a lack of resources, a lock, a read-only server, a statement that a pooler forgot. */
const PASSING = ['25006', '26', '53', '55P03', '57014'];

/**
 * By SQLSTATE alone: the severity is in the server's language. Certain is only what PostgreSQL itself says about this
 * statement while the session goes on; all else, codes of poolers and codes unknown here included, is unknown.
 * - rolled back: the server undid the statement because of something in it
 * - refused: the server undid it for a reason that has nothing to do with the updates
 * - unknown: the statement may have been committed
 */
export function effectOf(error: unknown): 'rolled back' | 'refused' | 'unknown' {
  if (isOneOf(ROLLED_BACK, error)) return 'rolled back';
  return isOneOf(REFUSED, error) ? 'refused' : 'unknown';
}

/** What passes is unavailable; anything else is a defect of the installation. */
export function refusalOf(error: unknown): 'unavailable' | 'internal' {
  return isOneOf(PASSING, error) ? 'unavailable' : 'internal';
}

export function isTransient(error: unknown): boolean {
  return isOneOf(['40'], error);
}

/** @param codes SQLSTATEs, or beginnings of them. */
function isOneOf(codes: readonly string[], error: unknown): boolean {
  if (!(error instanceof DatabaseError)) return false;
  const code = error.code ?? '';
  return codes.some((start) => code.startsWith(start));
}
