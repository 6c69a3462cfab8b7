import { describe, expect, it } from 'vitest';
import { countOutcomes, latencyOf, parseRecording, rateOf, slicesOf } from '../load/measurements.ts';

const sent = (startedAtMs: number, latencyMs: number, outcome = '200') => ({ startedAtMs, latencyMs, outcome });

describe('the numbers of the load test', () => {
  it('are read in the order of sending, the pauses of the generator apart', () => {
    const text = '2000.000,5.500,400\n1000.000,3.000,200\n1500.000,64.000,generator_pause\n3000.000,1.000,ECONNRESET\n';
    const { requests, generatorPauseMs } = parseRecording(text);
    expect(requests).toEqual([sent(1000, 3), sent(2000, 5.5, '400'), sent(3000, 1, 'ECONNRESET')]);
    expect(generatorPauseMs).toBe(64);
    expect(countOutcomes(requests)).toEqual({ 200: 1, 400: 1, ECONNRESET: 1 });
    expect(rateOf(requests)).toBe(1);
  });

  it('are percentiles that were measured, by nearest rank', () => {
    const requests = Array.from({ length: 200 }, (_, index) => sent(index, 200 - index));
    expect(latencyOf(requests)).toEqual({ meanMs: 100.5, p50Ms: 100, p95Ms: 190, p99Ms: 198, maxMs: 200 });
    expect(latencyOf([sent(0, 7)])).toEqual({ meanMs: 7, p50Ms: 7, p95Ms: 7, p99Ms: 7, maxMs: 7 });
    expect(latencyOf([])).toBeUndefined();
  });

  it('show a request where it was due and its answer where it came', () => {
    const slices = slicesOf([sent(10_000, 10), sent(10_100, 600, '400')], 250);
    expect(slices.map(({ fromS, latency, outcomesPerSecond }) => [fromS, latency?.maxMs, outcomesPerSecond])).toEqual([
      [0, 600, { 200: 4 }],
      [0.25, undefined, {}],
      [0.5, undefined, { 400: 4 }],
    ]);
    expect(slicesOf([], 250)).toEqual([]);
  });
});
