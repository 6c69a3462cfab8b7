// The targets, computed from the medians of one run of the benchmark.
import { OUTBOX_BYTES_MAX } from './measure.ts';
import type { MemoryRun } from './memory.ts';
import { short, whole } from './numbers.ts';
import type { Summary } from './summary.ts';
import { measured, nameOf, type Variant } from './variants.ts';

export interface Target {
  measured: string;
  target: string;
  figure: string;
  /** Undefined: not measured in this run. */
  met: boolean | undefined;
}

type Summaries = ReadonlyMap<string, Summary>;
type Figure = keyof { [Key in keyof Summary as Summary[Key] extends number | undefined ? Key : never]: true };

const MEGABYTE = 1024 * 1024;
const RSS_BYTES_MAX = 300 * MEGABYTE;
const UPDATES_FOR_FLAT = 5_000_000;
/** Of the median from the second quarter of a run to the last. */
const GROWTH_MAX = 0.1;

export function judge(summaries: Summaries, memory: MemoryRun | undefined): Target[] {
  const get = (variant: Variant, figure: Figure): number | undefined => {
    const summary = summaries.get(nameOf(variant));
    return summary && summary.problems.length === 0 ? summary[figure] : undefined;
  };
  const judged = (
    what: string,
    target: string,
    values: (number | undefined)[],
    test: (...values: number[]) => boolean,
    show: (...values: number[]) => string,
  ): Target => {
    const given = values.every((value) => value !== undefined);
    return {
      measured: what,
      target,
      figure: given ? show(...values) : 'not measured',
      met: given ? test(...values) : undefined,
    };
  };
  const ratio = (what: string, one: Variant, other: Variant, min: number, figure: Figure = 'acceptedPerSecond') =>
    judged(
      what,
      `≥ ${min}×`,
      [get(one, figure), get(other, figure)],
      (a, b) => a >= min * b,
      (a, b) => `${short(a / b)}× (${whole(a)}/s against ${whole(b)}/s)`,
    );
  const share = (what: string, one: Variant, other: Variant, min: number) =>
    judged(
      what,
      `≥ ${min * 100} %`,
      [get(one, 'acceptedPerSecond'), get(other, 'acceptedPerSecond')],
      (a, b) => a >= min * b,
      (a, b) => `${whole((100 * a) / b)} % (${whole(a)}/s against ${whole(b)}/s)`,
    );
  const rate = (what: string, variant: Variant, figure: Figure, min: number) =>
    judged(
      what,
      `≥ ${whole(min)}/s`,
      [get(variant, figure)],
      (a) => a >= min,
      (a) => `${whole(a)}/s`,
    );
  const lone = (mode: string, variant: Variant) =>
    judged(
      `lone client, p50 against usual, ${mode}`,
      '≤ 1.3×',
      [get(variant, 'p50Ms'), get(measured.usualLone, 'p50Ms')],
      (a, b) => a <= 1.3 * b,
      (a, b) => `${short(a / b)}× (${short(a)} ms against ${short(b)} ms)`,
    );
  const {
    ceiling,
    usualHot,
    usualEven,
    contractHot,
    hotDeferred,
    hotRunning,
    hotSubscriber,
    hotSubscriberKeys,
    hotBatchedEvents,
    hotSnapshot,
    hotDump,
    hotWriteHeld,
    evenDeferred,
    evenRunning,
    bulk,
    bulkKeys,
    usualTransfersHot,
    transfersHot,
    payoutsHot,
    transfersEven,
    holds,
    hotWithHolds,
    evenBesideBulk,
    bulk100Hot,
    bulk100Even,
    bulkTransfersHot,
    bulkTransfersEven,
  } = measured;
  const smallOutbox = (what: string, variant: Variant) =>
    judged(
      what,
      `≤ ${OUTBOX_BYTES_MAX / MEGABYTE} MB`,
      [get(variant, 'outboxBytes')],
      (bytes) => bytes <= OUTBOX_BYTES_MAX,
      (bytes) => `${short(bytes / MEGABYTE)} MB`,
    );
  return [
    ratio('one hot account, relay deferred, against usual', hotDeferred, usualHot, 5),
    share('the same, against ceiling', hotDeferred, ceiling, 0.6),
    ratio('one hot account, pipeline running, against usual', hotRunning, usualHot, 4.5),
    ratio('the same, and a subscriber reads', hotSubscriber, usualHot, 3),
    ratio('the same, and each update has an idempotency key', hotSubscriberKeys, usualHot, 3),
    ratio('10,000 accounts, even load, relay deferred, against usual', evenDeferred, usualEven, 2),
    ratio('10,000 accounts, even load, pipeline running, against usual', evenRunning, usualEven, 1),
    lone('relay deferred', measured.loneDeferred),
    lone('pipeline running', measured.loneRunning),
    rate('end to end, hot account, single updates', hotRunning, 'endToEndPerSecond', 5000),
    ratio('the same, against usual, same contract', hotRunning, contractHot, 3, 'endToEndPerSecond'),
    judged(
      'the same, of what was accepted',
      '≥ 97 %',
      [get(hotRunning, 'endToEndPerSecond'), get(hotRunning, 'acceptedPerSecond')],
      (a, b) => a >= 0.97 * b,
      (a, b) => `${whole((100 * a) / b)} %`,
    ),
    rate('end to end, 100 events a message', hotBatchedEvents, 'endToEndPerSecond', 7000),
    rate('bulk of 1,000, no keys: durable updates', bulk, 'acceptedPerSecond', 40_000),
    rate('bulk of 1,000, keys: durable updates', bulkKeys, 'acceptedPerSecond', 25_000),
    rate('drain of a full outbox, 1 event a message', bulk, 'drainPerSecond', 10_000),
    rate('drain of a full outbox, 100 events a message', bulkKeys, 'drainPerSecond', 25_000),
    share('rate with an idle snapshot held open', hotSnapshot, hotRunning, 0.8),
    smallOutbox('outbox on disk after drain, snapshot held', hotSnapshot),
    judged(
      'longest answer with a pg_dump',
      '≤ 100 ms',
      [get(hotDump, 'maxMs')],
      (a) => a <= 100,
      (a) => `${short(a)} ms`,
    ),
    smallOutbox('outbox on disk after the pg_dump ended', hotDump),
    judged(
      'unrelated write transaction held open: events flow',
      'rate > 0',
      [get(hotWriteHeld, 'endToEndPerSecond')],
      (a) => a > 0,
      (a) => `${whole(a)}/s end to end`,
    ),
    memoryTarget(memory),
    share('transfers, 10,000 accounts, even load, against single updates', transfersEven, evenDeferred, 0.6),
    share('transfers to one hot account, against single updates of it', transfersHot, hotDeferred, 0.5),
    share('transfers from one hot account, against single updates of it', payoutsHot, hotDeferred, 0.5),
    ratio('transfers to one hot account, against usual transfers', transfersHot, usualTransfersHot, 8),
    share('bulk of 100 transfers, even, against bulk of 100 updates', bulkTransfersEven, bulk100Even, 0.35),
    share('bulk of 100 transfers, one hot side, against bulk of 100 updates', bulkTransfersHot, bulk100Hot, 0.45),
    share('hold and capture, hot account, pairs against single updates', holds, hotDeferred, 0.3),
    share('updates of a hot account with 10,000 active holds, against none', hotWithHolds, hotDeferred, 0.9),
    judged(
      'p99 of single updates beside bulk of 2,000 legs',
      '≤ 100 ms',
      [get(evenBesideBulk, 'p99Ms')],
      (a) => a <= 100,
      (a) => `${short(a)} ms`,
    ),
  ];
}

/** Flat is only what was watched for long enough; too much is too much at once. */
function memoryTarget(memory: MemoryRun | undefined): Target {
  const what = { measured: `API memory over ${whole(UPDATES_FOR_FLAT)} updates`, target: '< 300 MB, flat' };
  if (!memory) return { ...what, figure: 'not measured', met: undefined };
  const { updates, maxBytes, growth } = memory;
  const isLong = updates >= UPDATES_FOR_FLAT;
  const isSmall = maxBytes < RSS_BYTES_MAX;
  return {
    ...what,
    figure:
      `${whole(maxBytes / MEGABYTE)} MB at most in ${whole(updates)} updates, ` +
      `${growth >= 0 ? '+' : ''}${whole(growth * 100)} % from the second quarter to the last`,
    met: isSmall && !isLong ? undefined : isSmall && growth < GROWTH_MAX,
  };
}
