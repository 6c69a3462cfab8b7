// A batch of deliveries: taken from those that wait, recorded, settled.
import { setTimeout as delay } from 'node:timers/promises';
import type { Channel, ConsumeMessage } from 'amqplib';
import type { Change } from '../shared/change.ts';
import { decodeEvents } from '../shared/events.ts';
import { inSpan, type TracedSpan } from '../shared/tracing.ts';
import type { ConsumerCounts, ConsumerOptions } from './consumer.ts';
import { recordChanges } from './ledger.ts';
import { traceLedger } from './ledger-trace.ts';

const DATABASE_RETRY_MIN_MS = 100;
const DATABASE_RETRY_MAX_MS = 5000;

export interface Delivery {
  message: ConsumeMessage;
  /** Undefined when it is no event of ours. */
  changes: Change[] | undefined;
}

/** Messages from the front until their events are enough for one statement: a message may hold several. */
export function takeBatch(waiting: ConsumeMessage[], rowsMax: number): Delivery[] {
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

/** The messages to refuse, or undefined when the session ended before the database answered. */
export async function record(
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
  const changes: Change[] = [];
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
        const { accountId, version } = changes[index] as Change;
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
export function settle(channel: Channel, batch: readonly Delivery[], refused: ReadonlySet<ConsumeMessage>): void {
  try {
    for (const message of refused) channel.nack(message, false, false);
    const lastGood = batch.findLast(({ message }) => !refused.has(message));
    if (lastGood) channel.ack(lastGood.message, true);
  } catch {
    // The channel closed meanwhile: all of it is delivered again and found to be recorded.
  }
}
