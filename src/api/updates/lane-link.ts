// The connection of a lane to PostgreSQL, and the one statement that goes over it.
import { type Client, destroyClient, isUnfit, openClient, reasonOf } from '../../shared/database.ts';
import type { Logger } from '../../shared/logging.ts';
import { isLacking, isReadOnly } from '../../shared/sqlstate.ts';
import { APPLY, type ApplyAnswer, parametersOf, resultsOf } from './batch.ts';
import type { Operation, OperationResult } from './operation.ts';

/**
 * How long a write that failed for want of disk or memory counts against the server, unless one
 * succeeds before.
 */
const WRITE_FAILURE_COUNTS_MS = 10_000;
/** Between attempts to connect that are made for no operation. */
const CONNECT_PAUSE_MS = 1000;

export type LaneLink = ReturnType<typeof createLaneLink>;

/** The connection of a lane: opened when first needed or asked about, replaced when in doubt. */
export function createLaneLink(options: { databaseUrl: string; statementTimeoutMs: number; log: Logger }) {
  const { databaseUrl, statementTimeoutMs, log } = options;
  let client: Client | undefined;
  let opening: Promise<boolean> | undefined;
  let closed = false;
  /** Why the last attempt to connect failed, and when; undefined once one succeeds. */
  let refused: { atMs: number; reason: string } | undefined;
  /** What the server lacked for the last write. */
  let lacking: { atMs: number; reason: string } | undefined;

  function discard(): void {
    if (client) destroyClient(client); // never cancel: the statement may be committing
    client = undefined;
  }

  async function open(): Promise<boolean> {
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
      refused = undefined;
      return true;
    } catch (error) {
      const reason = reasonOf(error);
      if (refused?.reason !== reason) log.warn({ err: error }, 'cannot connect to PostgreSQL');
      refused = { atMs: performance.now(), reason };
      return false;
    } finally {
      opening = undefined;
    }
  }

  /** Whether there is a connection to send on; opens one when there is none. */
  async function ready(): Promise<boolean> {
    if (client && isUnfit(client)) discard();
    if (client) return true;
    opening ??= open();
    return opening;
  }

  return {
    discard,
    ready,

    /** Whether there is a connection now. */
    isConnected: () => client !== undefined,

    /**
     * Why no operation could be done now, in a few words; opens a connection when there is none.
     */
    async problem(): Promise<string | undefined> {
      if (closed) return 'it is stopped';
      const nowMs = performance.now();
      const isPause = refused !== undefined && nowMs - refused.atMs < CONNECT_PAUSE_MS;
      if (!client && (isPause || !(await ready()))) return `no connection: ${refused?.reason}`;
      const isLacking = lacking !== undefined && nowMs - lacking.atMs < WRITE_FAILURE_COUNTS_MS;
      return isLacking ? `the last write failed: ${lacking?.reason}` : undefined;
    },

    /** A result for each operation, in order. effectOf() classifies a failure. */
    async send(operations: readonly Operation[]): Promise<OperationResult[]> {
      if (!client) throw new Error('the connection was lost before sending');
      try {
        const { rows } = await client.query<ApplyAnswer>({ ...APPLY, values: parametersOf(operations) });
        lacking = undefined;
        return resultsOf(operations, rows[0] as ApplyAnswer);
      } catch (error) {
        if (isLacking(error)) lacking = { atMs: performance.now(), reason: reasonOf(error) };
        if (isReadOnly(error)) discard();
        throw error;
      }
    },

    async close(): Promise<void> {
      closed = true;
      await opening;
      await client?.end();
    },
  };
}
