// The options and callbacks of a subscriber. docs/client.md describes them.
import type { BalanceEvent } from '../shared/contract.ts';
import type { Handled } from './history.ts';
import type { EntriesReader } from './standing.ts';

export interface SubscribeOptions {
  /**
   * RabbitMQ, `amqp://user:password@host:5672/vhost`; or `amqps:`, with `cacertfile`, `certfile`
   * and `keyfile` as parameters. For a cluster, a whole URL for each node, separated by commas: if
   * one is lost, the next is tried.
   */
  url: string;
  /** Of the service: the part before the dot in the name of its exchange. `balance` unless given. */
  namespace?: string | undefined;
  /**
   * Your durable queue. It is declared (quorum, one active consumer) and bound each time the
   * connection opens, so that it is restored after a lost broker. Without a name, the queue lives
   * as long as the connection: events published while there is none are missed and leave a gap.
   */
  queue?: string | undefined;
  /** `false`: the queue was declared and bound elsewhere, and is used unchanged. */
  declareQueue?: boolean | undefined;
  /**
   * A client of the same service, with a key that may read: what `createClient` returns. The
   * entries are read when an event does not follow from what was handled, before `onGap` and
   * `onRewind`, and to backfill, so that no event outside the account's history is accepted.
   */
  client: EntriesReader;
  /**
   * How far an account was handled: what `handle` got as `delivery.handled`, or `onRewind` as
   * `shared`, and stored. `undefined` if nothing is stored: nothing of the account was handled, and
   * its opening comes first. Called when an account is first seen, after each lost connection and
   * each pause of a second, and whenever an event does not follow: another process may have
   * continued. Leave it out if nothing is stored: an account then starts with whatever arrives.
   */
  lastHandled?: ((accountId: string) => Handled | null | undefined | Promise<Handled | null | undefined>) | undefined;
  /**
   * Called for each event, at least once, in the order of versions within an account, one at a time
   * for each. The message is acknowledged when it has resolved. If it rejects, it is called again
   * after a pause, and the account waits for it.
   */
  handle(event: BalanceEvent, delivery: Delivery): void | Promise<void>;
  /**
   * Called where versions are missing for `gapTimeoutMs`, and again after the same time while it
   * answers `wait`. Nothing of this account is handled meanwhile.
   */
  onGap(gap: Gap): GapAnswer | Promise<GapAnswer>;
  /**
   * Called where the database lost changes that were handled (a failover, a restore), before
   * anything of the history that replaced them is handled. Undo everything after `shared`, and
   * store `shared` as what was handled last: `lastHandled` is called again when it has resolved. If
   * it rejects, it is called again after a pause. Nothing of this account is handled meanwhile.
   */
  onRewind(rewind: Rewind): void | Promise<void>;
  /** What went wrong. Process warnings unless given. */
  onProblem?: ((problem: Problem) => void) | undefined;
  /**
   * Accounts whose events are handled at the same time, 1 to 1,000. Separate limits of the same
   * size apply to calls of `lastHandled`, reads of entries, other callbacks (`onGap`, `onRewind`)
   * and accounts being backfilled, each with up to 1,000 entries. 1 unless given.
   */
  concurrency?: number | undefined;
  /** Messages in hand, waiting, held or being handled, 1 to 65,535: it bounds the memory. 2,000 unless given. */
  prefetch?: number | undefined;
  /** How long versions may be missing before `onGap` is called, 1 to 3,600,000 ms. 10,000 unless given. */
  gapTimeoutMs?: number | undefined;
  /** Aborted: as `stop()`. */
  signal?: AbortSignal | undefined;
}

export interface Delivery {
  /** 1, and more after each rejection of `handle`. */
  attempt: number;
  /** It may have been handled before: RabbitMQ has delivered it once already. */
  redelivered: boolean;
  /** It was published again by the operator, or read from the entries. */
  replayed: boolean;
  /**
   * To be stored with the effects of the event, as JSON: what `lastHandled` must return from then
   * on.
   */
  handled: Handled;
  /**
   * All of `prefetch` is in hand and waits for this event or others like it: while it is rejected,
   * nothing progresses.
   */
  isFull: boolean;
}

export interface Gap {
  accountId: string;
  firstMissing: number;
  lastMissing: number;
  /** The state as if the missing versions were handled: store it if you answer `skip`. */
  handled: Handled;
  /** Events after it that are held. */
  held: number;
  /**
   * All of `prefetch` is held after gaps, so nothing more arrives: with `wait`, nothing progresses.
   */
  isFull: boolean;
}

/**
 * - `backfill`: the missing versions are read from the entries, and handled as if they had arrived.
 * - `wait`: they may still arrive, or be replayed.
 * - `skip`: continue after them. `onGap` may have dealt with them itself.
 */
export type GapAnswer = 'backfill' | 'wait' | 'skip';

export interface Rewind {
  accountId: string;
  /** What was handled last, and is not in the account's history now. */
  last: Handled;
  /**
   * The last change that both histories have; its version is -1 where they have none. Undefined if
   * the epochs agree but the balances do not (a fork): compare what you stored with the entries.
   */
  shared: Handled | undefined;
  /** Of the history that counts now. */
  event: BalanceEvent;
  /** Events of the account that are in hand. */
  held: number;
}

/**
 * - `superseded`: an event that is not in the account's history was dropped: the database lost it,
 *   or it is forged.
 * - `stalled`: all of `prefetch` is in hand and waits for failing accounts or missing versions. Nothing else is handled.
 * - all others are retried.
 */
export interface Problem {
  kind:
    | 'disconnected'
    | 'malformed_message'
    | 'superseded'
    | 'stalled'
    | 'handle_failed'
    | 'last_handled_failed'
    | 'entries_failed'
    | 'on_gap_failed'
    | 'on_rewind_failed';
  /** A sentence, without secrets. */
  message: string;
  error?: unknown;
  accountId?: string;
  version?: number;
  /** Failures in a row. */
  attempt?: number;
  /** Until the next attempt. */
  pauseMs?: number;
}

export interface Subscription {
  /** Whether events can currently arrive. */
  readonly isConsuming: boolean;
  /**
   * Starts no more handlers, waits for the running ones, acknowledges, and disconnects. Idempotent.
   */
  stop(): Promise<void>;
}
