// What a ledger of years costs its readers: pages of a busy account and of quiet ones, by every filter that has an index and
// by some that have none, and exports, through an API of its own.
import path from 'node:path';
import { freePort } from '../../src/local/free-port.ts';
import type { Bounds } from './bounds.ts';
import { percentile, short, whole } from './numbers.ts';
import { keeperOf, startProcess } from './processes.ts';
import type { BenchServers } from './servers.ts';
import { busyId, type History, quietId } from './years-fill.ts';

/** Of a ledger of any length. */
const READING_P99_MS_MAX = 50;
const READINGS = 300;

export async function measureReading(
  { judge }: Bounds,
  url: string,
  history: History,
  servers: BenchServers,
): Promise<void> {
  const port = String(await freePort());
  const api = await startProcess(keeperOf(servers.reaper), {
    script: '../../src/api/main.ts',
    env: { DATABASE_URL: url, AMQP_URL: 'amqp://nowhere', RELAY: 'off', AUTH: 'off', HOST: '127.0.0.1', PORT: port },
    logFile: path.join(servers.folder, 'logs', 'api.log'),
  });
  const root = `http://127.0.0.1:${port}/v1`;
  const { busyVersion, quietVersion, quietAccounts } = history;
  const newest = await fetch(`${root}/accounts/${busyId(0)}/entries?limit=1`);
  const [{ eventId }] = ((await newest.json()) as { entries: [{ eventId: string }] }).entries;
  const digits = eventId.split(':').at(-1);
  /** A number below a limit, in no order that a cache would like. */
  const spread = (reading: number, limit: number) => (reading * 7_368_787) % limit;
  const place = (reading: number, version: number, kind: number) => 10 * spread(reading, version / 10) + kind;
  const accounts = [
    ['of a busy account', busyVersion, () => 0, busyId],
    ['of a quiet account', quietVersion, (reading: number) => spread(reading, quietAccounts), quietId],
  ] as const;
  for (const [whose, version, numberOf, idOf] of accounts) {
    const readings: Record<string, (reading: number) => string> = {
      'first page': () => '',
      'page at any depth': (reading) => `?cursor=${1 + spread(reading, version)}`,
      'entries by reference': (reading) => `?reference=order ${numberOf(reading)}-${place(reading, version, 1)}`,
      'entries by a reference that it never had': () => '?reference=never',
      'entries by holdId': (reading) => `?holdId=hold-${place(reading, version, 5)}`,
      'entries by transferId': (reading) => {
        const number = numberOf(reading);
        return `?transferId=${idOf(number - (number % 2))}:${place(reading, version, 3)}:${digits}`;
      },
      'entries by type, from any depth': (reading) => `?type=hold.placed&cursor=${1 + spread(reading, version)}`,
      'entries of a day': (reading) => {
        const day = Date.parse('2024-02-01') + spread(reading, 600) * 86_400_000;
        return `?from=${new Date(day).toISOString()}&to=${new Date(day + 86_400_000).toISOString()}`;
      },
    };
    for (const [what, query] of Object.entries(readings))
      await time(`${what} ${whose}`, (reading) => `/accounts/${idOf(numberOf(reading))}/entries${query(reading)}`);
  }
  await time('the legs of a transfer', (reading) => {
    const number = spread(reading, quietAccounts / 2) * 2;
    return `/transfers/${quietId(number)}:${place(reading, quietVersion, 3)}:${digits}`;
  });
  for (const format of ['jsonl', 'csv']) await measureExport(judge, root, format, busyVersion + 1);
  await api.stop();

  async function time(what: string, pathOf: (reading: number) => string): Promise<void> {
    const tookMs: number[] = [];
    for (let reading = 0; reading < READINGS; reading += 1) {
      const startedAtMs = performance.now();
      const response = await fetch(root + pathOf(reading));
      await response.arrayBuffer();
      if (response.status !== 200) throw new Error(`${pathOf(reading)} was answered ${response.status}`);
      tookMs.push(performance.now() - startedAtMs);
    }
    const p99 = percentile(tookMs, 99);
    judge(
      `${what}: p50, p99, longest`,
      `${short(percentile(tookMs, 50))} ms, ${short(p99)} ms, ${short(percentile(tookMs, 100))} ms`,
      `p99 ≤ ${READING_P99_MS_MAX} ms`,
      p99 <= READING_P99_MS_MAX,
    );
  }
}

async function measureExport(judge: Bounds['judge'], root: string, format: string, entriesMin: number): Promise<void> {
  let [bytes, lines] = [0, format === 'csv' ? -1 : 0]; // the head
  const startedAtMs = performance.now();
  const { body } = await fetch(`${root}/accounts/${busyId(0)}/entries/export?format=${format}`);
  for await (const chunk of body as ReadableStream<Uint8Array>) {
    bytes += chunk.length;
    for (let at = chunk.indexOf(10); at !== -1; at = chunk.indexOf(10, at + 1)) lines += 1;
  }
  const took = (performance.now() - startedAtMs) / 1000;
  judge(
    `export of a busy account as ${format}`,
    `${whole(lines)} entries, ${whole(bytes / 2 ** 20)} MB, ${short(took)} s, ${whole(lines / took)}/s`,
    'all of them',
    lines >= entriesMin,
  );
}
