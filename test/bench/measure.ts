// One run of one variant: new database, new processes, warm-up, load, drain, proof.
import { availableParallelism } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { verify } from '../../src/shared/verification.ts';
import { writeAccountsFile } from './accounts.ts';
import { machineBusySeconds, residentBytes } from './cpu.ts';
import {
  type BenchDatabase,
  createDatabase,
  drained,
  hold,
  lastRecordedAtMs,
  outboxBytes,
  pendingChanges,
  settledTotal,
} from './database.ts';
import type { Driver, Load, LoadResult } from './load.ts';
import { type Bench, type Cpu, cpuPerThousand, type System, startSystem } from './system.ts';
import { nameOf, type Variant } from './variants.ts';

/** V8 has compiled what is hot by then. */
const WARM_UP_SECONDS = 2;
/** Bulk fills the outbox faster than it is drained, and that is waited for. */
const BULK_WARM_UP_SECONDS = 1;
/** The slowest drain that is waited for. */
const DRAIN_PER_SECOND_MIN = 1000;
const DRAIN_TIMEOUT_MIN_MS = 30_000;
/** How long the relay may take to truncate what it no longer needs. */
const SHRINK_TIMEOUT_MS = 8000;
/** What a transaction that ran when a partition was done holds up for a minute or two of load. */
export const OUTBOX_BYTES_MAX = 400 * 1024 * 1024;
const POLL_INTERVAL_MS = 200;
/** Of the operations in bulk requests that were answered: too many for the queue, and the rate is not that of bulk. */
const REFUSED_PERCENT_MAX = 1;

export interface Run {
  name: string;
  variant: Variant;
  /** Updates answered 200, or, in bulk, applied by a request answered 200. */
  accepted: number;
  acceptedPerSecond: number;
  /** Of requests. */
  p50Ms: number;
  p99Ms: number;
  maxMs: number;
  /** Answers that were not 200, and requests without an answer. */
  notAccepted: number;
  /** CPU seconds per 1,000 updates; with the pipeline running until the last ledger row, else during the load. */
  cpu: Cpu;
  /** Updates / (start of the load until the last ledger row), where there is a ledger and it was waited for. */
  endToEndPerSecond: number | undefined;
  /** Deferred: ledger rows / (relay and worker ready until the last ledger row). */
  drainPerSecond: number | undefined;
  drainCpu: Cpu | undefined;
  /** On disk, after the drain. */
  outboxBytes: number | undefined;
  apiRssBytes: number;
  /** Of the machine's cores, what others used during the load: kernel threads, and strangers. */
  foreignShare: number;
  /** What verify looked at; undefined where there are no histories to prove. */
  verifiedEntries: number | undefined;
  /** None, or the row is void. */
  problems: string[];
}

export interface MeasureOptions {
  seconds: number;
  driver: Driver;
  nodeOptions?: string[];
}

export async function measure(bench: Bench, variant: Variant, options: MeasureOptions): Promise<Run> {
  const database = await createDatabase(bench.servers.postgres.url, variant);
  try {
    const system = await startSystem(bench, database, variant, options.nodeOptions);
    try {
      return await run(bench, variant, options, database, system);
    } finally {
      await system.end(options.nodeOptions ? 'gently' : undefined);
    }
  } finally {
    await database.drop();
  }
}

let loads = 0;

const BULK_OF_2000_LEGS = { operation: 'transfer', operationsPerRequest: 1000, connections: 2 } as const;
/** A hold and its capture count as one. */
const REQUESTS_PER_OPERATION: Record<Variant['operation'], number> = { update: 1, transfer: 1, payout: 1, hold: 2 };

async function run(
  bench: Bench,
  variant: Variant,
  { seconds, driver }: MeasureOptions,
  database: BenchDatabase,
  system: System,
): Promise<Run> {
  const { service, connections, operation, operationsPerRequest, keys, pipeline, loadFactor, besideBulk } = variant;
  const problems: string[] = [];
  const accountsFile = writeAccountsFile(bench.servers.folder, variant);
  const besideFile = writeAccountsFile(bench.servers.folder, { ...variant, operation: 'transfer' });
  const send = async (loadSeconds: number): Promise<LoadResult> => {
    const keyPrefix = keys || operation === 'hold' ? `bench-${++loads}-` : undefined;
    const load: Load = {
      url: system.url,
      connections,
      seconds: loadSeconds,
      accountsFile,
      operation: operation === 'payout' ? 'transfer' : operation,
      operationsPerRequest,
      keyPrefix,
    };
    const bulk: Load = { ...load, ...BULK_OF_2000_LEGS, accountsFile: besideFile, keyPrefix: undefined };
    const [result, beside] = await Promise.all([driver(load), besideBulk ? driver(bulk) : undefined]);
    return { ...result, cpuSeconds: Math.max(result.cpuSeconds, beside?.cpuSeconds ?? 0) };
  };
  const waitUntilDrained = async (rows: number) => {
    const timeoutMs = DRAIN_TIMEOUT_MIN_MS + (rows / DRAIN_PER_SECOND_MIN) * 1000;
    if (!(await drained(database, timeoutMs))) {
      problems.push(
        `${await pendingChanges(database)} changes are not in the ledger after ${Math.round(timeoutMs / 1000)} s`,
      );
    }
  };

  await send(operationsPerRequest === 1 ? WARM_UP_SECONDS : BULK_WARM_UP_SECONDS);
  const before = await settledTotal(database, variant);
  if (pipeline === 'running') await waitUntilDrained(before);
  const release = await hold(database, variant.hold);
  try {
    const cpuBefore = system.cpu();
    const busyBefore = machineBusySeconds();
    const startedAtMs = Date.now();
    const load = await send(Math.max(1, Math.round(seconds * loadFactor)));
    let cpuAfter = system.cpu();
    const ownSeconds = load.cpuSeconds + total(cpuAfter) - total(cpuBefore);
    const coreSeconds = load.seconds * availableParallelism();
    const foreignShare = Math.max(0, machineBusySeconds() - busyBefore - ownSeconds) / coreSeconds;
    const applied = (await settledTotal(database, variant)) - before;
    const answered = Math.floor(
      ((load.answered - load.notOk) * operationsPerRequest) / REQUESTS_PER_OPERATION[operation],
    );
    const accepted = service === 'ceiling' ? answered : Math.min(answered, applied);
    // What was under way when the load ended was applied without an answer: no more than that.
    if (service !== 'ceiling' && applied > answered + connections * operationsPerRequest) {
      problems.push(`${applied} operations were applied, ${answered} answered 200`);
    }
    if (service !== 'ceiling' && operationsPerRequest === 1 && applied < answered) {
      problems.push(`${answered} operations were answered 200, but only ${applied} applied`);
    }
    if (service !== 'ceiling' && applied < (answered * (100 - REFUSED_PERCENT_MAX)) / 100) {
      problems.push(`of ${answered} operations in bulk only ${applied} were applied`);
    }
    if (accepted === 0) problems.push('nothing was accepted');

    let endToEndPerSecond: number | undefined;
    if (pipeline === 'running') {
      await waitUntilDrained(applied);
      cpuAfter = system.cpu();
      endToEndPerSecond = applied / (((await lastRecordedAtMs(database)) - startedAtMs) / 1000);
    }
    let drainPerSecond: number | undefined;
    let drainCpu: Cpu | undefined;
    if (pipeline === 'deferred' && variant.drain) {
      await system.startPipeline();
      const drainStartedAtMs = Date.now();
      const drainCpuBefore = system.cpu();
      await waitUntilDrained(before + applied);
      const drainMs = (await lastRecordedAtMs(database)) - drainStartedAtMs;
      drainPerSecond = ((before + applied) / drainMs) * 1000;
      drainCpu = cpuPerThousand(drainCpuBefore, system.cpu(), before + applied);
    }
    const isDrained = endToEndPerSecond !== undefined || drainPerSecond !== undefined;
    if (variant.hold === 'dump') await release(); // TRUNCATE has to wait for it
    const outbox = isDrained ? await shrunkOutboxBytes(database) : undefined;
    const apiRssBytes = residentBytes(system.apiPid) ?? 0;
    const verifiedEntries = await prove(variant, database, isDrained, problems);
    if (!system.complete()) problems.push('a process ended by itself');
    return {
      name: nameOf(variant),
      variant,
      accepted,
      acceptedPerSecond: accepted / load.seconds,
      p50Ms: load.p50Ms,
      p99Ms: load.p99Ms,
      maxMs: load.maxMs,
      notAccepted: load.notOk + load.broken,
      cpu: cpuPerThousand(cpuBefore, { ...cpuAfter, load: load.cpuSeconds }, Math.max(accepted, 1)),
      endToEndPerSecond,
      drainPerSecond,
      drainCpu,
      outboxBytes: outbox,
      apiRssBytes,
      foreignShare,
      verifiedEntries,
      problems,
    };
  } finally {
    await release();
  }
}

const total = (cpu: Cpu) => Object.values(cpu).reduce((sum, seconds) => sum + seconds, 0);

/** Under the limit at once, or when the relay gets to it. */
async function shrunkOutboxBytes(database: BenchDatabase): Promise<number> {
  const deadline = Date.now() + SHRINK_TIMEOUT_MS;
  for (;;) {
    const bytes = await outboxBytes(database);
    if (bytes <= OUTBOX_BYTES_MAX || Date.now() > deadline) return bytes;
    await delay(POLL_INTERVAL_MS);
  }
}

async function prove(
  { service }: Variant,
  database: BenchDatabase,
  isDrained: boolean,
  problems: string[],
): Promise<number | undefined> {
  if (service === 'ceiling' || service === 'usual') return undefined;
  const found = await verify(database.client);
  for (const {
    accountId,
    problems: [first],
  } of found.offenders.slice(0, 3))
    problems.push(`${accountId}: ${first}`);
  if (isDrained && found.pendingChanges > 0) problems.push(`${found.pendingChanges} changes are not in the ledger`);
  return found.ledgerEntries + found.pendingChanges;
}
