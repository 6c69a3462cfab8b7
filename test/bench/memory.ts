// Memory of the API over a long run: one hot account, pipeline running, until so many updates were accepted.
import { setTimeout as delay } from 'node:timers/promises';
import { verify } from '../../src/shared/verification.ts';
import { writeAccountsFile } from './accounts.ts';
import { residentBytes } from './cpu.ts';
import { createDatabase, drained } from './database.ts';
import type { Driver } from './load.ts';
import { median } from './numbers.ts';
import { type Bench, startSystem } from './system.ts';
import { ours } from './variants.ts';

const SAMPLE_INTERVAL_MS = 500;
const SAMPLES_KEPT_MAX = 500;
const LOAD_SECONDS = 5;
/** Slower than this for the whole run, something is wrong. */
const UPDATES_PER_SECOND_MIN = 500;
const DRAIN_TIMEOUT_MS = 300_000;

export interface MemoryRun {
  date: string;
  updates: number;
  seconds: number;
  /** Resident bytes of the API, by seconds since the start; of a long run every nth. */
  samples: { seconds: number; bytes: number }[];
  maxBytes: number;
  /** Median of the last quarter / median of the second quarter - 1. */
  growth: number;
}

/** @throws when updates are not accepted, or do not add up. */
export async function measureMemory(bench: Bench, driver: Driver, updatesMin: number): Promise<MemoryRun> {
  const variant = ours();
  const database = await createDatabase(bench.servers.postgres.url, variant);
  const system = await startSystem(bench, database, variant);
  const accountsFile = writeAccountsFile(bench.servers.folder, variant);
  const startedAtMs = performance.now();
  const elapsed = () => (performance.now() - startedAtMs) / 1000;
  const samples: MemoryRun['samples'] = [];
  let updates = 0;
  let over = false;
  const sample = async () => {
    while (!over) {
      const bytes = residentBytes(system.apiPid);
      if (bytes !== undefined) samples.push({ seconds: Number(elapsed().toFixed(1)), bytes });
      await delay(SAMPLE_INTERVAL_MS);
    }
  };
  const sampling = sample();
  try {
    while (updates < updatesMin) {
      const { url } = system;
      const load = await driver({
        ...{ url, connections: 64, seconds: LOAD_SECONDS, accountsFile },
        ...{ operation: 'update' as const, operationsPerRequest: 1, keyPrefix: undefined },
      });
      updates += load.answered - load.notOk;
      if (elapsed() > 30 + updatesMin / UPDATES_PER_SECOND_MIN)
        throw new Error(`only ${updates} updates in ${elapsed()} s`);
    }
    const seconds = elapsed();
    over = true;
    await sampling;
    if (!(await drained(database, DRAIN_TIMEOUT_MS))) throw new Error('the ledger did not get everything');
    const { offenders } = await verify(database.client);
    if (offenders.length > 0) throw new Error(`not verified: ${JSON.stringify(offenders)}`);
    const quarter = (n: number) =>
      median(samples.slice((samples.length * (n - 1)) / 4, (samples.length * n) / 4).map(({ bytes }) => bytes));
    const every = Math.ceil(samples.length / SAMPLES_KEPT_MAX);
    return {
      date: new Date().toISOString(),
      updates,
      seconds,
      samples: samples.filter((_sample, index) => index % every === 0),
      maxBytes: Math.max(...samples.map(({ bytes }) => bytes)),
      growth: quarter(4) / quarter(2) - 1,
    };
  } finally {
    over = true;
    await sampling;
    await system.end();
    await database.drop();
  }
}
