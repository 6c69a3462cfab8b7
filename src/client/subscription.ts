// What a subscriber tells and is told. docs/client.md describes it.
import type { BalanceEvent } from '../shared/contract.ts';

export interface SubscribeOptions {
  /** RabbitMQ, `amqp://user:password@host:5672/vhost`; or `amqps:`, with `cacertfile`, `certfile` and `keyfile` as parameters. */
  url: string;
  /** Of the service: the part before the dot in the name of its exchange. `balance` unless given. */
  namespace?: string | undefined;
  /**
   * Your durable queue. It is declared (quorum, one active consumer) and bound each time the connection opens, so that it
   * is there again after a lost broker. Without a name, a queue that lives as long as the connection: what happens while
   * there is none is missed, and a gap.
   */
  queue?: string | undefined;
  /** `false`: the queue was declared and bound by somebody else, and is taken as it is. */
  declareQueue?: boolean | undefined;
  /**
   * The last version of an account that took effect, -1 where none did (the opening is version 0): from where `handle` stores it, best in the
   * transaction of its effects. `undefined`: not known, begin with what arrives. Asked when an account is met, and again
   * after each loss of the connection.
   */
  lastVersion(accountId: string): number | undefined | Promise<number | undefined>;
  /**
   * Called for each event, at least once, in the order of versions within an account, one at a time for each. The message is
   * acknowledged when it has resolved. Where it rejects it is called again after a pause, and the account waits for it.
   */
  handle(event: BalanceEvent, delivery: Delivery): void | Promise<void>;
  /**
   * Called where versions are missing for `gapTimeoutMs`, and again after the same time. `wait`: go on waiting. `skip`: go
   * on after them. Before it answers `skip` it may handle them itself, from the ledger (`entries` of the client): nothing of
   * this account is handled meanwhile.
   */
  onGap(gap: Gap): 'skip' | 'wait' | Promise<'skip' | 'wait'>;
  /** What went wrong and is tried again. Process warnings unless given. */
  onProblem?: ((problem: Problem) => void) | undefined;
  /** Accounts whose events are handled at the same time, and as many for each of the two questions, 1 to 1,000. 1 unless given. */
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
  /** It was published again on demand of the operator. */
  replayed: boolean;
}

export interface Gap {
  accountId: string;
  firstMissing: number;
  lastMissing: number;
  /** Events behind it that are held. */
  held: number;
  /** All of `prefetch` is held behind gaps, so nothing more arrives: with `wait` everything stands still. */
  isFull: boolean;
}

export interface Problem {
  kind: 'disconnected' | 'malformed_message' | 'handle_failed' | 'last_version_failed' | 'on_gap_failed';
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
  /** Whether events can arrive at present. */
  readonly isConsuming: boolean;
  /** Starts no handler any more, waits for those under way, acknowledges, and disconnects. Harmless when called twice. */
  stop(): Promise<void>;
}
