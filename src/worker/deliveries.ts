// A batch of deliveries: taken from those waiting, recorded, settled.
import { setTimeout as delay } from 'node:timers/promises';
import type { Channel, ConsumeMessage } from 'amqplib';
import { backOffMs } from '../shared/back-off.ts';
import type { Change } from '../shared/change.ts';
import { decodeEvents } from '../shared/events.ts';
import { isDataException } from '../shared/sqlstate.ts';
import { inSpan, type TracedSpan } from '../shared/tracing.ts';
import { BatchReport } from './batch-report.ts';
import type { ConsumerCounts, ConsumerOptions } from './consumer.ts';
import { recordChanges } from './ledger.ts';
import { traceLedger } from './ledger-trace.ts';

const DATABASE_RETRY_MIN_MS = 200;
const DATABASE_RETRY_MAX_MS = 5000;

export interface Delivery {
  message: ConsumeMessage;
  /** Undefined when it is no event of ours. */
  changes: Change[] | undefined;
}

/** Messages from the front until there is enough for one statement: a message may hold several events, or none of ours. */
export function takeBatch(waiting: ConsumeMessage[], rowsMax: number): Delivery[] {
  const batch: Delivery[] = [];
  let rows = 0;
  for (const message of waiting) {
    const changes = decodeEvents(message.content);
    batch.push({ message, changes });
    rows += changes?.length ?? 1;
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
  const report = new BatchReport();
  try {
    return await recordAndReport(batch, options, signal, counts, report, spans);
  } finally {
    report.writeTo(options.log);
  }
}

async function recordAndReport(
  batch: readonly Delivery[],
  options: ConsumerOptions,
  signal: AbortSignal,
  counts: ConsumerCounts,
  report: BatchReport,
  spans?: readonly (TracedSpan | undefined)[],
): Promise<Set<ConsumeMessage> | undefined> {
  const { pool, log, onRecorded, onBatch, tracing } = options;
  const refused = new Set<ConsumeMessage>();
  const refuseMalformed = (message: ConsumeMessage) => {
    refused.add(message);
    counts.malformed += 1;
    report.malformed(message);
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
        const change = changes[index] as Change;
        if (verdict === 'forged') {
          refused.add(messages[index] as ConsumeMessage);
          counts.forged += 1;
          report.forged(change);
        } else if (verdict === 'superseded') {
          counts.superseded += 1;
          report.superseded(change);
        } else {
          counts[verdict === 'recorded' ? 'recorded' : 'duplicates'] += 1;
          onRecorded(change.accountId); // a duplicate too: this may be the second attempt at what was committed at the first
        }
      });
      break;
    } catch (error) {
      if (isDataException(error)) {
        // A value that the contract allows and the database refuses: each message is recorded
        // separately, so that it affects no other.
        if (batch.length === 1) refuseMalformed(batch[0]?.message as ConsumeMessage);
        else {
          for (const delivery of batch.filter(({ message }) => !refused.has(message))) {
            const alone = await recordAndReport([delivery], options, signal, counts, report);
            if (!alone) return undefined;
            for (const message of alone) refused.add(message);
          }
        }
        break;
      }
      counts.retries += 1;
      log.error({ err: error, attempt, messages: changes.length }, 'recording failed, retrying');
      await delay(backOffMs(attempt, DATABASE_RETRY_MIN_MS, DATABASE_RETRY_MAX_MS), undefined, { signal }).catch(
        () => {},
      );
    }
  }
  return refused;
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
