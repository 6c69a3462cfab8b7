// The service under attack, as it runs: an API process that asks for keys, one that does not, and a
// worker. Each attack is watched from outside and from inside: what was asked and how it was
// answered, memory, the log, and an honest client beside.
import { existsSync, readFileSync } from 'node:fs';
import { residentBytes } from '../bench/cpu.ts';
import {
  createAccount,
  createApiKey,
  createBroker,
  createDatabase,
  type Database,
  environmentOf,
  type LogLine,
  onCleanUp,
  type Spawned,
  send,
  spawnProcess,
} from '../support/harness.ts';
import type { OpenApi } from '../support/openapi/document.ts';
import type { Finding } from './findings.ts';
import { createJudge } from './judge.ts';
import { type Exchange, startTap } from './tap.ts';

const HONEST_PAUSE_MS = 20;
const HONEST_TIMEOUT_MS = 10_000;
/** Above what an API process has under any load of bench:overload. */
const MEGABYTES_MAX = 512;

export interface Target {
  auth: 'off' | 'required';
  process: Spawned;
  /** Straight to it. */
  url: string;
  /** By way of the tap. */
  tapUrl: string;
  /** Of a key, as one line; empty where none is asked for. */
  header: string;
  openApi: OpenApi;
}

export interface Seen {
  /** By status, of what came through the tap. */
  answers: string;
  /** Of the honest client. */
  updates: number;
  honestMs: string;
  /** That the process holds afterwards. */
  megabytes: number;
  /**
   * Part of the time that it was ready to run and had no CPU: on a busy machine, what is slow is
   * not the service.
   */
  starvedPercent: number;
  findings: Finding[];
}

export interface Service {
  database: Database;
  targets: Record<'off' | 'required', Target>;
  /** Ids to ask for. */
  samples: { transferId: string; eventId: string };
  /** Runs an attack and says what was seen of it. */
  watch(target: Target, attack: () => Promise<Finding[]>): Promise<Seen>;
}

export async function startService(): Promise<Service> {
  const database = await createDatabase();
  const environment = environmentOf(database, createBroker());
  await spawnProcess('worker', environment);
  const wrong: Finding[] = [];
  const answers = new Map<number, number>();
  const attacker = (await createApiKey(database, 'attacker')).headers.authorization;
  const startTarget = async (auth: Target['auth'], header: string): Promise<Target> => {
    const process = await spawnProcess('api', { ...environment, AUTH: auth });
    const url = process.url();
    const openApi = (await (await fetch(`${url}/openapi.json`)).json()) as OpenApi;
    const judge = createJudge(openApi);
    const tapUrl = await startTap(url, (exchange) => {
      answers.set(exchange.status, (answers.get(exchange.status) ?? 0) + 1);
      const fault = exchange.status >= 500 ? `a ${exchange.status}` : judge(exchange);
      if (fault) wrong.push({ level: 'medium', what: `${brief(exchange)}: ${fault.slice(0, 300)}` });
    });
    return { auth, process, url, tapUrl, header, openApi };
  };
  const targets = {
    off: await startTarget('off', ''),
    required: await startTarget('required', `Authorization: ${attacker}`),
  };
  const samples = await populate(targets.off.url);
  const honest = startHonest(Object.values(targets), (await createApiKey(database, 'honest')).headers);
  return {
    database,
    targets,
    samples,
    async watch(target, attack) {
      const failuresBefore = await failuresOf(target.url);
      const linesBefore = target.process.lines().length;
      wrong.length = 0;
      answers.clear();
      honest.take();
      const [startedAtMs, starvedBeforeMs] = [performance.now(), starvedMs(target)];
      const found = await attack();
      const starved = (starvedMs(target) - starvedBeforeMs) / (performance.now() - startedAtMs);
      const { ms, refused } = honest.take();
      const failures = (await failuresOf(target.url)) - failuresBefore;
      const findings = [...found, ...wrong, ...stateOf(target, linesBefore)];
      findings.push(...refused.map((what): Finding => ({ level: 'high', what: `an honest update: ${what}` })));
      if (failures > 0) findings.push({ level: 'high', what: `${failures} answers of 500 or above` });
      ms.sort((one, other) => one - other);
      return {
        answers: [...answers]
          .sort()
          .map(([status, count]) => `${status}: ${count}`)
          .join(', '),
        updates: ms.length,
        honestMs: `${Math.round(ms[Math.floor(ms.length * 0.99)] ?? 0)} / ${Math.round(ms.at(-1) ?? 0)}`,
        starvedPercent: Math.round(100 * starved),
        megabytes: megabytesOf(target),
        findings,
      };
    },
  };
}

const brief = ({ method, target, status }: Exchange) => `${method} ${target.slice(0, 200)} ${status}`;

async function populate(url: string): Promise<Service['samples']> {
  for (const id of ['alice', 'bob', 'honest']) await createAccount(url, id, 1_000_000);
  const post = (path: string, body: object) => send(url, 'POST', path, body);
  const transfer = await post('/v1/transfers', { from: 'alice', to: 'bob', amount: 100, reference: 'order 1001' });
  const update = await post('/v1/balance-updates', { accountId: 'alice', amount: 100_000 });
  await post('/v1/accounts/alice/holds', { holdId: 'checkout-1001', amount: 100 });
  return { transferId: transfer.body.transferId, eventId: update.body.eventId };
}

/** How long its main thread has waited for a CPU so far; 0 when it has ended. */
function starvedMs({ process }: Target): number {
  const file = `/proc/${process.child.pid}/schedstat`;
  const [, waitedNs = 0] = existsSync(file) ? readFileSync(file, 'utf8').split(' ').map(Number) : [];
  return waitedNs / 1e6;
}

const megabytesOf = ({ process }: Pick<Target, 'process'>) =>
  Math.round((residentBytes(process.child.pid as number) ?? 0) / 2 ** 20);

function stateOf({ process, auth }: Target, linesBefore: number): Finding[] {
  const findings: Finding[] = [];
  const { exitCode, signalCode } = process.child;
  if (exitCode !== null || signalCode !== null)
    findings.push({ level: 'high', what: `the process of AUTH=${auth} ended` });
  const megabytes = megabytesOf({ process });
  if (megabytes > MEGABYTES_MAX) findings.push({ level: 'high', what: `it holds ${megabytes} MB` });
  const errors = process
    .lines()
    .slice(linesBefore)
    .filter(({ level }: LogLine) => level === 'error' || level === 'fatal');
  findings.push(
    ...errors.map(({ msg, err }): Finding => ({ level: 'high', what: `the log: ${msg}: ${JSON.stringify(err)}` })),
  );
  return findings;
}

/** How many answers of 500 or above there were since the start, to any client. */
async function failuresOf(url: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const counts = text.matchAll(/^http_request_duration_seconds_count\{.*status="5\d\d"\} (\d+)/gm);
  return [...counts].reduce((sum, [, count]) => sum + Number(count), 0);
}

/** One update after the other, at each process in turn, and /readyz between them. */
function startHonest(targets: Target[], headers: Record<string, string>) {
  let ms: number[] = [];
  let refused: string[] = [];
  let isOver = false;
  async function once(url: string): Promise<void> {
    const startedAtMs = performance.now();
    const signal = AbortSignal.timeout(HONEST_TIMEOUT_MS);
    const body = JSON.stringify({ accountId: 'honest', amount: 1 });
    const json = { ...headers, 'content-type': 'application/json' };
    const update = await fetch(`${url}/v1/balance-updates`, { method: 'POST', headers: json, body, signal });
    const text = await update.text();
    ms.push(performance.now() - startedAtMs);
    if (update.status !== 200) refused.push(text);
    const ready = await fetch(`${url}/readyz`, { signal });
    if (ready.status !== 200) refused.push(`/readyz: ${await ready.text()}`);
    else await ready.arrayBuffer();
  }
  async function goOn(): Promise<void> {
    while (!isOver) {
      for (const { url } of targets) {
        await once(url).catch((error: Error) => refused.push(`${error.message}: ${String(error.cause)}`));
        await new Promise((resolve) => setTimeout(resolve, HONEST_PAUSE_MS));
      }
    }
  }
  const running = goOn();
  onCleanUp(() => {
    isOver = true;
    return running;
  });
  return {
    /** What was since the last time. */
    take() {
      const taken = { ms, refused };
      ms = [];
      refused = [];
      return taken;
    },
  };
}
