// One run: a whole system of its own, clients, faults, and the proof. Bounded in time: what does not drain in time is a
// violation that says what is stuck.
import { rmSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { createKey } from '../../src/cli/api-keys.ts';
import { SCOPES } from '../../src/shared/api-key.ts';
import type { Pool } from '../../src/shared/database.ts';
import { topologyOf } from '../../src/shared/topology.ts';
import { keeperOf } from '../bench/processes.ts';
import { startReaper } from '../support/reaper.ts';
import { openAccount } from './account-requests.ts';
import { ACCOUNTS, ACTORS, AMOUNT_MAX, RICH_ACCOUNT, type Tokens } from './accounts.ts';
import { attempt } from './attempts.ts';
import { check } from './checker/checker.ts';
import type { CheckInput, Violation, Window } from './checker/evidence.ts';
import { type Crew, runClients } from './clients/clients.ts';
import { type Evidence, type Fault, type FaultContext, holds } from './faults/fault.ts';
import { forgeEvents } from './faults/server-faults.ts';
import { readFinalState } from './final-state.ts';
import { type Fleet, startFleet } from './fleet.ts';
import { History, now } from './history.ts';
import { createHttpClient } from './http.ts';
import { type Injection, injectFaults, strikesOf } from './nemesis.ts';
import { keepTurning, turnOutbox } from './outbox-turns.ts';
import { randomFrom } from './random.ts';
import { replayAll } from './replay.ts';
import type { Report } from './report.ts';
import { type Servers, startServers } from './servers.ts';
import { takeSnapshots } from './snapshots.ts';
import { type Subscriber, startSubscriber } from './subscriber.ts';
import { acceptedVersions, caughtUp, describeStuck, isHealthy, isNoneToExpire } from './system-state.ts';

export interface SuiteOptions {
  seed: number;
  faults: readonly Fault[];
  /** How long faults strike, and longer until each has struck so often. */
  faultsMs: number;
  strikesMin: number;
  /** How long the system has to heal, and in the end to drain. */
  healMs: number;
  say: (line: string) => void;
  /** The servers of the run, which are its own; one of each kind unless given. */
  servers?: (say: (line: string) => void) => Promise<Servers>;
  /** Settings of the processes, instead of those that make a run short. */
  environment?: Record<string, string>;
  /** The clients, instead of all kinds. */
  crew?: Crew;
  /** Judges what the checks do not know of, and returns the evidence without it. */
  judge?: (input: CheckInput, fleet: Fleet) => { input: CheckInput; violations: Violation[] };
}

const CALM_MS = 3000;
const START_TIMEOUT_MS = 60_000;
/** For faults that found nothing to strike. */
const LATE_FAULTS_MS = 60_000;

/** Short times, so that a run meets them; the meaning is the same. */
const ENVIRONMENT = {
  LANES: '3',
  BATCH_ROWS_MAX: '50',
  STATEMENT_TIMEOUT_MS: '3000',
  RELAY_REPUBLISH_MS: '1000',
};

export async function runSuite(options: SuiteOptions): Promise<Report> {
  const startedMs = now();
  const servers = await (options.servers ?? startServers)(options.say);
  const reaper = startReaper();
  let fleet: Fleet | undefined;
  let isClean = false;
  try {
    fleet = await startFleet({
      keeper: keeperOf(reaper),
      folder: servers.folder,
      databaseUrl: servers.databaseUrl,
      amqpUrl: servers.broker.url,
      environment: options.environment ?? ENVIRONMENT,
    });
    const report = await attack(options, servers, fleet, startedMs);
    isClean = report.violations.length === 0;
    return report;
  } finally {
    await fleet?.stop();
    await reaper.close();
    await servers.stop();
    if (isClean) rmSync(servers.folder, { recursive: true, force: true });
  }
}

async function attack(
  { seed, faults, faultsMs, strikesMin, healMs, say, crew, judge }: SuiteOptions,
  servers: Servers,
  fleet: Fleet,
  startedMs: number,
): Promise<Report> {
  const { pool, broker, postgres } = servers;
  const random = randomFrom(seed);
  const topology = topologyOf('balance');
  const subscriber = startSubscriber(broker.url, topology);
  const evidence: Evidence = { wipes: [], stops: [], forged: [], broken: [], missed: [] };
  const context: FaultContext = {
    fleet,
    postgres,
    broker,
    pool,
    topology,
    subscriber,
    evidence,
    random: random.fork('faults'),
  };
  const history = new History();
  const timeline: Injection[] = [];
  const calm: Window[] = [];
  const stuck: Violation[] = [];

  const healed = async (what: string) => {
    const accepted = await acceptedVersions(context);
    const isHealed = async () => (await isHealthy(fleet, subscriber)) && (await caughtUp(context, accepted));
    if (await holds(isHealed, healMs)) return true;
    stuck.push({ check: 'stuck', what: `${what}: ${await describeStuck(context)}` });
    return false;
  };
  const beCalm = async (during: () => Promise<unknown> = async () => {}) => {
    const startMs = now();
    await Promise.all([delay(CALM_MS), during()]);
    calm.push({ startMs, endMs: now() });
  };

  if (!(await holds(() => isHealthy(fleet, subscriber), START_TIMEOUT_MS))) {
    throw new Error(`the system did not get ready: ${await describeStuck(context)}`);
  }
  const tokens = await createTokens(pool);
  await openAccounts(history, fleet, tokens);
  const snapshots = takeSnapshots(servers.databaseUrl);
  const winding = new AbortController();
  const over = new AbortController();
  const clients = runClients({
    history,
    tokens,
    random: random.fork('clients'),
    targets: fleet.apis,
    winding: winding.signal,
    over: over.signal,
    ...(crew && { crew }),
  });
  const turns = keepTurning(pool);
  try {
    say(`Traffic flows; faults strike${faultsMs > 0 ? ` for ${Math.round(faultsMs / 1000)} s` : ''}`);
    await turnOutbox(pool);
    await beCalm();
    const overAtMs = now() + faultsMs;
    const latestMs = overAtMs + faultsMs + LATE_FAULTS_MS;
    const lacking = () => faults.filter(({ name }) => strikesOf(timeline, name) < strikesMin);
    await injectFaults(
      context,
      faults,
      timeline,
      (track) => now() > latestMs || (now() > overAtMs && !lacking().some((fault) => fault.track === track)),
    );
    for (const { name } of lacking()) {
      stuck.push({
        check: 'coverage',
        what: `the fault ${name} struck less than ${strikesMin} times: the run proves less than it should`,
      });
    }
    say('No more faults: the system heals, and everything is proved');
    if (await healed('after the last fault')) await beCalm(() => forgeEvents(context));
  } finally {
    winding.abort();
  }
  const patience = setTimeout(() => over.abort(), healMs);
  const unsettled = await clients;
  clearTimeout(patience);
  await turns.stop();
  for (const { id, legs } of unsettled) {
    stuck.push({
      check: 'stuck',
      accountId: legs[0].accountId,
      what: `nobody could find out what became of ${id} within ${healMs} ms`,
    });
  }
  await replayAll(history, fleet.apis, tokens);
  await holds(() => isNoneToExpire(pool), healMs);
  const isDrained = await healed('the ledger, the subscriber or the dead letters lack something');
  await holds(() => forgeriesAreDead(evidence, subscriber, calm), healMs);
  await snapshots.stop();
  const final = await readFinalState(pool);
  await subscriber.stop();

  const seen = { history, final, subscriber: subscriber.record, evidence, calm };
  const judged = judge?.(seen, fleet) ?? { input: seen, violations: [] };
  const violations = [
    ...stuck,
    ...fleet.accidents.map((what) => ({ check: 'processes', what })),
    ...snapshots.violations.map((violation) => ({ check: 'conserved', ...violation })),
    ...(snapshots.taken === 0 ? [{ check: 'conserved', what: 'no snapshot could be taken' }] : []),
    ...judged.violations,
    ...check(judged.input),
  ];
  return {
    seed,
    seconds: Math.round((now() - startedMs) / 1000),
    isDrained,
    history,
    final,
    timeline,
    calm,
    snapshots: snapshots.taken,
    subscriber: subscriber.record,
    folder: servers.folder,
    violations,
  };
}

function forgeriesAreDead({ forged }: Evidence, { record }: Subscriber, calm: readonly Window[]): boolean {
  const dead = new Set(record.dead.map(({ messageId }) => messageId));
  const since = calm.at(-1)?.startMs ?? 0;
  return forged.every(({ atMs, messageId }) => atMs < since || dead.has(messageId));
}

async function createTokens(pool: Pool): Promise<Tokens> {
  const client = await pool.connect();
  try {
    const tokens: [string, string][] = [];
    for (const actor of ACTORS) tokens.push([actor, (await createKey(client, { actor, scopes: SCOPES })).token]);
    return Object.fromEntries(tokens) as Tokens;
  } finally {
    client.release();
  }
}

/** Below the end of the range by so much, and mostly credited from then on. */
const RICH_MARGIN = 100;

async function openAccounts(history: History, fleet: Fleet, tokens: Tokens): Promise<void> {
  const http = createHttpClient();
  const [actor] = ACTORS;
  const [api] = fleet.apis;
  if (!api) throw new Error('there is no API process');
  try {
    const sender = { history, http, tokens };
    const opened = await Promise.all(
      [...ACCOUNTS].map(([accountId, wanted]) => openAccount(sender, api, actor, accountId, wanted)),
    );
    if (!opened.every(Boolean)) throw new Error('the accounts could not be opened');
    const amount = AMOUNT_MAX - RICH_MARGIN;
    const legs = [{ accountId: RICH_ACCOUNT, amount }] as const;
    await attempt(sender, api, { id: 'riches', kind: 'update', legs, key: 'riches', actor });
  } finally {
    http.close();
  }
}
