// Consumes the ledger queue. The contract with the broker, in its order:
//   1. a message is acknowledged only after its entry was committed, or was found in the ledger already;
//   2. what is no event of ours, or says something that was never accepted, is dead-lettered and counted;
//   3. while the database is away nothing is acknowledged or returned: the messages wait here, the channel stays open;
//   4. when the session ends, everything unacknowledged goes back to the queue and comes again: harmless.
import { setTimeout as delay } from 'node:timers/promises';
import type { Channel, ConsumeMessage } from 'amqplib';
import { answered, type BrokerLink, type BrokerSession, BrokerTimeout, keepBrokerLink } from '../shared/broker.ts';
import type { Pool } from '../shared/database.ts';
import { type BalanceChange, decodeEvents } from '../shared/events.ts';
import type { Running } from '../shared/lifecycle.ts';
import type { Logger } from '../shared/logging.ts';
import { DELETED_QUEUE_SETTLE_MS, declareTopology, type Topology } from '../shared/topology.ts';
import { inSpan, type TracedSpan, type Tracing } from '../shared/tracing.ts';
import { doChangesWait, recordChanges } from './ledger.ts';
import { traceDelivery, traceLedger } from './ledger-trace.ts';

/** How long the queue may answer nothing, or with RabbitMQ's internal error, before it is replaced: one that recovers has time. */
const UNANSWERED_MAX_MS = 30_000;
const BROKEN_MAX_MS = 5000;
/** Well above the time from one attempt to the next: 10 s for an answer, and what comes before it. */
const BROKEN_AGAIN_MS = 60_000;
/** It closes the whole connection. */
const INTERNAL_ERROR = 541;
/** How often RabbitMQ is asked for them. */
const DEAD_LETTERS_EVERY_MS = 5000;
/** After so long without a delivery, though changes wait for their entries, the queue is consumed anew. */
const QUIET_MAX_MS = 5000;
/** After a batch that took all there was, so that what comes in the meantime shares a statement and its commit. */
const BATCH_PAUSE_MS = 25;
const DATABASE_RETRY_MIN_MS = 100;
const DATABASE_RETRY_MAX_MS = 5000;

/** Since the start of the process. */
export interface ConsumerCounts {
  recorded: number;
  duplicates: number;
  /** Bodies that are no event. */
  malformed: number;
  /** Events that no accepted change stands behind: somebody else publishes to the exchange. */
  forged: number;
  /** Attempts to record that failed because of the database; the messages were kept and tried again. */
  retries: number;
}

export interface Consumer extends Running {
  readonly link: BrokerLink;
  readonly counts: Readonly<ConsumerCounts>;
  /** Messages in the queue of the dead letters, as RabbitMQ said lately; undefined while there is no link to it. */
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
  /** Since when the queue cannot be consumed, though the broker is there, and when that was seen last. */
  brokenSinceMs: number | undefined;
  brokenSeenMs: number;
  /** That has lasted too long: the next session makes a new queue. */
  replaceQueue: boolean;
  deadLetters: number | undefined;
  isStopping: boolean;
}

export function startConsumer(options: ConsumerOptions): Consumer {
  const counts: ConsumerCounts = { recorded: 0, duplicates: 0, malformed: 0, forged: 0, retries: 0 };
  const state: State = {
    ...{ brokenSinceMs: undefined, brokenSeenMs: 0, replaceQueue: false },
    ...{ deadLetters: undefined, isStopping: false },
  };
  const link = keepBrokerLink({
    url: options.amqpUrl,
    service: 'worker',
    log: options.log,
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
  const { topology, log, pool, batchRowsMax, tracing } = options;
  const control = await openChannel(session);
  if (state.replaceQueue) await replaceQueue(state, control, topology, log);
  await answered('declaring the queues', declareTopology(control, topology));

  let wake = () => {};
  const onDelivery = () => wake();
  const subscribeAnew = () => subscribe(session, options, onDelivery);
  let { channel, waiting } = await subscribeAnew().catch((error: unknown) => {
    noteBrokenQueue(state, error, session.signal.reason, topology, log);
    throw error;
  });
  state.brokenSinceMs = undefined;
  session.signal.addEventListener('abort', onDelivery);
  watchDeadLetters(control, session, topology, state);

  while (!session.signal.aborted) {
    if (waiting.length === 0) {
      const isQuiet = await new Promise<boolean>((resolve) => {
        const timer = setTimeout(() => resolve(true), QUIET_MAX_MS);
        wake = () => {
          clearTimeout(timer);
          resolve(false);
        };
      });
      if (!isQuiet || !(await doChangesWait(pool)) || waiting.length > 0 || session.signal.aborted) continue;
      log.info(`nothing was delivered for ${QUIET_MAX_MS} ms though changes wait: consuming the ledger queue anew`);
      const silent = channel;
      ({ channel, waiting } = await subscribeAnew());
      await unsubscribe(silent);
      continue;
    }
    const batch = takeBatch(waiting, batchRowsMax);
    const isAll = waiting.length === 0;
    const spans = tracing && batch.map(({ message }) => traceDelivery(tracing, topology, message));
    const refused = await record(batch, options, session.signal, counts, spans);
    if (refused) settle(channel, batch, refused);
    spans?.forEach((span, index) => {
      const { message } = batch[index] as Delivery;
      if (!refused) span?.fail('session_ended');
      else if (refused.has(message)) span?.fail('dead_lettered');
      span?.end();
    });
    if (isAll) await delay(BATCH_PAUSE_MS, undefined, { signal: session.signal }).catch(() => {});
  }
  // By its answer RabbitMQ has the last acknowledgements: closing the connection alone overtakes them.
  if (state.isStopping) await answered('closing the channel', channel.close());
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

interface Subscription {
  channel: Channel;
  /** Delivered and not yet taken; bounded by the prefetch. */
  waiting: ConsumeMessage[];
}

/**
 * Consumes the ledger queue on a channel of its own. A consumer whose queue is deleted and declared again within some 30 ms is
 * not told of it: RabbitMQ (3.10, not 4.0) keeps it as a consumer of the new queue, takes messages for it, and never sends it one.
 * From here that looks like a queue with nothing in it. What it was to have comes to the others when its channel closes.
 */
async function subscribe(
  session: BrokerSession,
  { topology, prefetch }: ConsumerOptions,
  onDelivery: () => void,
): Promise<Subscription> {
  const channel = await openChannel(session);
  await answered('setting the prefetch', channel.prefetch(prefetch));
  const waiting: ConsumeMessage[] = [];
  const onMessage = (message: ConsumeMessage | null) => {
    if (message) waiting.push(message);
    else session.end(new Error('consumer cancelled by RabbitMQ')); // the queue was deleted, or its node went away
    onDelivery();
  };
  await answered('consuming the ledger queue', channel.consume(topology.ledgerQueue, onMessage));
  return { channel, waiting };
}

/** What was delivered to it in the meantime goes back to the queue. */
async function unsubscribe(channel: Channel): Promise<void> {
  channel.removeAllListeners('close');
  await answered('closing a channel', channel.close());
}

async function openChannel(session: BrokerSession): Promise<Channel> {
  const channel = await answered('opening a channel', session.connection.createChannel());
  channel.on('error', session.end);
  channel.on('close', () => session.end(new Error('channel closed')));
  return channel;
}

/**
 * A broker that was killed soon after a quorum queue was declared can come back with a queue that answers nothing, or that
 * ends the connection of whoever consumes it, for good (seen with 3.10 and 4.0). A new one takes its place; what was in
 * the old one is still in the outbox, and is published again.
 */
function noteBrokenQueue(state: State, error: unknown, ended: unknown, topology: Topology, log: Logger): void {
  const isUnanswered = error instanceof BrokerTimeout;
  if (!isUnanswered && (ended as { code?: number } | undefined)?.code !== INTERNAL_ERROR) return;
  const nowMs = performance.now();
  if (nowMs - state.brokenSeenMs > BROKEN_AGAIN_MS) state.brokenSinceMs = undefined; // the broker was away in between
  state.brokenSeenMs = nowMs;
  state.brokenSinceMs ??= nowMs;
  const lastedMs = nowMs - state.brokenSinceMs;
  log.error({ queue: topology.ledgerQueue, lastedMs }, 'the ledger queue cannot be consumed');
  if (lastedMs < (isUnanswered ? UNANSWERED_MAX_MS : BROKEN_MAX_MS)) return;
  state.replaceQueue = true;
  state.brokenSinceMs = undefined;
}

async function replaceQueue(state: State, channel: Channel, topology: Topology, log: Logger): Promise<void> {
  log.error({ queue: topology.ledgerQueue }, 'replacing the ledger queue');
  await answered('deleting the ledger queue', channel.deleteQueue(topology.ledgerQueue));
  await delay(DELETED_QUEUE_SETTLE_MS); // other workers consume it
  state.replaceQueue = false;
}

/** Messages from the front until their events are enough for one statement: a message may hold several. */
function takeBatch(waiting: ConsumeMessage[], rowsMax: number): Delivery[] {
  const batch: Delivery[] = [];
  let rows = 0;
  for (const message of waiting) {
    const changes = decodeEvents(message.content);
    batch.push({ message, changes });
    rows += changes?.length ?? 0;
    if (rows >= rowsMax) break;
  }
  waiting.splice(0, batch.length);
  return batch;
}

interface Delivery {
  message: ConsumeMessage;
  /** Undefined when it is no event of ours. */
  changes: BalanceChange[] | undefined;
}

/** The messages to refuse, or undefined when the session ended before the database answered. */
async function record(
  batch: readonly Delivery[],
  options: ConsumerOptions,
  signal: AbortSignal,
  counts: ConsumerCounts,
  spans?: readonly (TracedSpan | undefined)[],
): Promise<Set<ConsumeMessage> | undefined> {
  const { pool, log, onRecorded, onBatch, tracing } = options;
  const refused = new Set<ConsumeMessage>();
  const refuseMalformed = (message: ConsumeMessage) => {
    refused.add(message);
    counts.malformed += 1;
    log.error({ messageId: message.properties.messageId }, 'dead-lettered a malformed message');
  };
  const changes: BalanceChange[] = [];
  const messages: ConsumeMessage[] = []; // of each change
  for (const { message, changes: ofMessage } of batch) {
    if (!ofMessage) refuseMalformed(message);
    for (const change of ofMessage ?? []) {
      changes.push(change);
      messages.push(message);
    }
  }
  for (let attempt = 1; changes.length > 0; attempt += 1) {
    if (signal.aborted) return undefined;
    try {
      const span = tracing && spans && traceLedger(tracing, spans, changes.length);
      const startedAtMs = performance.now();
      const verdicts = await inSpan(span, () => recordChanges(pool, changes)).finally(() =>
        onBatch(changes.length, performance.now() - startedAtMs),
      );
      verdicts.forEach((verdict, index) => {
        const { accountId, version } = changes[index] as BalanceChange;
        if (verdict === 'forged') {
          refused.add(messages[index] as ConsumeMessage);
          counts.forged += 1;
          log.error({ accountId, version }, 'dead-lettered an event that no accepted change stands behind');
        } else {
          counts[verdict === 'recorded' ? 'recorded' : 'duplicates'] += 1;
          onRecorded(accountId); // a duplicate too: this may be the second attempt at what was committed at the first
        }
      });
      break;
    } catch (error) {
      if (isDataException(error)) {
        // A value that the database does not take, though the contract does: each message alone, so that it hurts no other.
        if (batch.length === 1) refuseMalformed(batch[0]?.message as ConsumeMessage);
        else {
          for (const delivery of batch.filter(({ message }) => !refused.has(message))) {
            const alone = await record([delivery], options, signal, counts);
            if (!alone) return undefined;
            for (const message of alone) refused.add(message);
          }
        }
        break;
      }
      counts.retries += 1;
      log.error({ err: error, attempt, messages: changes.length }, 'recording failed, trying again');
      const pauseMs = Math.min(DATABASE_RETRY_MAX_MS, DATABASE_RETRY_MIN_MS * 2 ** Math.min(attempt, 10));
      await delay(pauseMs, undefined, { signal }).catch(() => {});
    }
  }
  return refused;
}

function isDataException(error: unknown): boolean {
  return (error as { code?: string }).code?.startsWith('22') ?? false;
}

/** Refused ones first, one by one; then a single acknowledgement covers the rest up to the last good one. */
function settle(channel: Channel, batch: readonly Delivery[], refused: ReadonlySet<ConsumeMessage>): void {
  try {
    for (const message of refused) channel.nack(message, false, false);
    const lastGood = batch.findLast(({ message }) => !refused.has(message));
    if (lastGood) channel.ack(lastGood.message, true);
  } catch {
    // The channel closed meanwhile: all of it is delivered again and found to be recorded.
  }
}
