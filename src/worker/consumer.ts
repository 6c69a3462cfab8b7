// Consumes the ledger queue. The contract with the broker, in its order:
//   1. a message is acknowledged only after its entry was committed, or was found in the ledger already;
//   2. a message that is not an event of ours, or matches no accepted change, is dead-lettered and
//      counted; an event that may belong to a history that the database lost is acknowledged and
//      counted;
//   3. while the database is down, nothing is acknowledged or returned: the messages wait here, the
//      channel stays open;
//   4. when the session ends, everything unacknowledged returns to the queue and is delivered
//      again, which is safe.
import { setTimeout as delay } from 'node:timers/promises';
import type { Channel } from 'amqplib';
import { backOffMs } from '../shared/back-off.ts';
import { answered, type BrokerLink, type BrokerSession, keepBrokerLink } from '../shared/broker.ts';
import { openChannel } from '../shared/channel.ts';
import type { Pool } from '../shared/database.ts';
import type { Running } from '../shared/lifecycle.ts';
import type { Logger } from '../shared/logging.ts';
import { declareTopology, type Topology } from '../shared/topology.ts';
import type { Tracing } from '../shared/tracing.ts';
import { type BrokenQueue, watchForBrokenQueue } from './broken-queue.ts';
import { type Delivery, record, settle, takeBatch } from './deliveries.ts';
import { doChangesWait } from './ledger.ts';
import { traceDelivery } from './ledger-trace.ts';
import { type Subscription, subscribe } from './subscription.ts';

/** How often RabbitMQ is queried for them. */
const DEAD_LETTERS_EVERY_MS = 5000;
/** After so long without a delivery, though changes wait for their entries, the queue is consumed again. */
const QUIET_MIN_MS = 5000;
/** If that has no effect, because no relay publishes, it is done less and less often. */
const QUIET_MAX_MS = 60_000;
/** After a batch that took all there was, so that what comes in the meantime shares a statement and its commit. */
const BATCH_PAUSE_MS = 25;

/** Since the start of the process. */
export interface ConsumerCounts {
  recorded: number;
  duplicates: number;
  /** Bodies that are no event. */
  malformed: number;
  /** Events that the database may have published in a history that it lost. */
  superseded: number;
  /** Events that match no accepted change: something else publishes to the exchange. */
  forged: number;
  /** Attempts to record that failed because of the database; the messages were kept and tried again. */
  retries: number;
}

export interface Consumer extends Running {
  readonly link: BrokerLink;
  readonly counts: Readonly<ConsumerCounts>;
  /**
   * Messages in the queue of the dead letters, as last reported by RabbitMQ; undefined while there
   * is no link to it.
   */
  deadLetters(): number | undefined;
}

export interface ConsumerOptions {
  amqpUrl: string;
  topology: Topology;
  pool: Pool;
  log: Logger;
  /** Messages held here at most. */
  prefetch: number;
  batchRowsMax: number;
  /** Called for each entry that the ledger holds now. */
  onRecorded: (accountId: string) => void;
  /** Called after each attempt to record a batch. */
  onBatch: (entries: number, tookMs: number) => void;
  tracing?: Tracing | undefined;
}

/** What outlives a session. */
interface State {
  brokenQueue: BrokenQueue;
  deadLetters: number | undefined;
  isStopping: boolean;
}

export function startConsumer(options: ConsumerOptions): Consumer {
  const { amqpUrl, topology, log } = options;
  const counts: ConsumerCounts = { recorded: 0, duplicates: 0, malformed: 0, superseded: 0, forged: 0, retries: 0 };
  const state: State = {
    brokenQueue: watchForBrokenQueue(topology.ledgerQueue, log),
    deadLetters: undefined,
    isStopping: false,
  };
  const link = keepBrokerLink({
    url: amqpUrl,
    service: 'worker',
    log,
    run: (session) => consume(session, options, counts, state),
  });
  return {
    link,
    counts,
    deadLetters: () => state.deadLetters,
    stop() {
      state.isStopping = true;
      return link.stop();
    },
  };
}

async function consume(
  session: BrokerSession,
  options: ConsumerOptions,
  counts: ConsumerCounts,
  state: State,
): Promise<void> {
  const { topology, prefetch, pool, log } = options;
  const { brokenQueue } = state;
  const control = await openChannel(session.connection.createChannel(), session);
  await brokenQueue.deleteIfDue(control);
  await answered('declaring the queues', declareTopology(control, topology));
  const subscribeToLedger = () => subscribe(session, topology.ledgerQueue, prefetch);
  let subscription = await subscribeToLedger().catch((error: unknown) => {
    brokenQueue.failed(error, session.signal.reason);
    throw error;
  });
  brokenQueue.consumed();
  watchDeadLetters(control, session, topology, state);

  for (let quietTimes = 1; !session.signal.aborted; ) {
    const quietMs = backOffMs(quietTimes, QUIET_MIN_MS, QUIET_MAX_MS);
    if (await subscription.delivered(quietMs)) {
      quietTimes = 1;
      await settleBatch(subscription, options, session.signal, counts);
    } else if (!session.signal.aborted && (await doChangesWait(pool)) && subscription.waiting.length === 0) {
      // A consumer whose queue is deleted and declared again within about 30 ms is not notified:
      // RabbitMQ (3.10, not 4.0) keeps it as a consumer of the new queue, reserves messages for it,
      // and never sends one. From here that looks like an empty queue. Its messages go to other
      // consumers when its channel closes.
      log.info(
        `nothing was delivered for ${quietMs} ms although changes are waiting: consuming the ledger queue again`,
      );
      quietTimes += 1;
      const silent = subscription;
      subscription = await subscribeToLedger();
      await silent.close();
    }
  }
  // Its answer means that RabbitMQ has the last acknowledgements: closing only the connection could
  // overtake them.
  if (state.isStopping) await answered('closing the channel', subscription.channel.close());
}

async function settleBatch(
  { channel, waiting }: Subscription,
  options: ConsumerOptions,
  signal: AbortSignal,
  counts: ConsumerCounts,
): Promise<void> {
  const { topology, batchRowsMax, prefetch, tracing } = options;
  const batch = takeBatch(waiting, batchRowsMax);
  // With half of the prefetch in hand, the broker has more messages and waits for acknowledgements.
  const isAll = waiting.length === 0 && batch.length < prefetch / 2;
  const spans = tracing && batch.map(({ message }) => traceDelivery(tracing, topology, message));
  const refused = await record(batch, options, signal, counts, spans);
  if (refused) settle(channel, batch, refused);
  spans?.forEach((span, index) => {
    const { message } = batch[index] as Delivery;
    if (!refused) span?.fail('session_ended');
    else if (refused.has(message)) span?.fail('dead_lettered');
    span?.end();
  });
  if (isAll) await delay(BATCH_PAUSE_MS, undefined, { signal }).catch(() => {});
}

/** Until the session ends. */
function watchDeadLetters(channel: Channel, { signal }: BrokerSession, topology: Topology, state: State): void {
  if (signal.aborted) return;
  const ask = () =>
    answered('counting the dead letters', channel.checkQueue(topology.deadLetters)).then(
      ({ messageCount }) => {
        if (!signal.aborted) state.deadLetters = messageCount;
      },
      () => {
        state.deadLetters = undefined; // whatever it is, it ends the session or the next answer corrects it
      },
    );
  void ask();
  const timer = setInterval(ask, DEAD_LETTERS_EVERY_MS);
  signal.addEventListener('abort', () => {
    clearInterval(timer);
    state.deadLetters = undefined;
  });
}
