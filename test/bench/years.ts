// npm run bench:years: what a ledger of years costs. One database with `--entries N`, made by SQL, on a PostgreSQL of its
// own: how fast the worker writes to it, reading, an export, verify, --since, sizes and VACUUM. Prints a table; exit code 1
// where a bound was missed.
import { statfsSync } from 'node:fs';
import { commandLine, refuse, wholeOption } from '../../src/cli/command-line.ts';
import { listChainHeads } from '../../src/shared/chain-head.ts';
import type { ChainHead } from '../../src/shared/contract.ts';
import { type Client, openClient } from '../../src/shared/database.ts';
import { migrate } from '../../src/shared/migrations.ts';
import { inSnapshot, type Verification, verify } from '../../src/shared/verification.ts';
import { PLAN_SINCE, verifySince } from '../../src/shared/verification-since.ts';
import { createBounds } from './bounds.ts';
import { administer } from './database.ts';
import { interruptible } from './interrupt.ts';
import { median, short, whole } from './numbers.ts';
import { seconds } from './seconds.ts';
import { type BenchServers, startPostgresOnly } from './servers.ts';
import { gigabytes, measureNewVacuum, measureSizes, measureVacuum } from './years-disk.ts';
import { accountsFor, afterFill, fillOpenings, fillYears, type History } from './years-fill.ts';
import { measureReading } from './years-read.ts';
import { measureWrites, type WriteRates } from './years-write.ts';

const ENTRIES_MIN = 100_000;
const ENTRIES_MAX = 100_000_000;
/** What an entry takes on disk with all that belongs to it, and as much again for the write-ahead log and for sorting. */
const DISK_BYTES_PER_ENTRY = 1200;
const DISK_BYTES_SPARE = 8 * 2 ** 30;
/** Changes that the worker records at a time, in each database in turn. */
const WRITES = 50_000;
const WRITE_ROUNDS = 3;
/** The rate in a full ledger, against an empty one. */
const WRITE_SHARE_MIN = 0.5;

const options = commandLine(
  { entries: { type: 'string' }, 'fill-minutes': { type: 'string' } },
  `usage: npm run bench:years -- [options]

Measures what a ledger of years costs, on a PostgreSQL of its own: how fast the worker writes to it, reading, an export,
verify and verify --since, sizes and VACUUM. Prints a table; exit code 1 where a bound was missed. Refuses to start
where the disk has no room for it.

  --entries N        of the ledger (1000000; 100000 to 100000000)
  --fill-minutes M   how long making them may take (25): with what is there by then, the rest is measured`,
);
const wanted = wholeOption('entries', options.entries, 1_000_000, ENTRIES_MAX);
if (wanted < ENTRIES_MIN) refuse(`--entries ${wanted}: it must be at least ${ENTRIES_MIN}.`);
const fillMinutes = wholeOption('fill-minutes', options['fill-minutes'], 25, 600);

const bounds = createBounds();
const { judge, report, tell } = bounds;

function checkDisk(folder: string): void {
  const { bavail, bsize } = statfsSync(folder);
  const needed = wanted * DISK_BYTES_PER_ENTRY + DISK_BYTES_SPARE;
  if (bavail * bsize >= needed) return;
  throw new Error(
    `${folder} has ${gigabytes(bavail * bsize)} free, and ${whole(wanted)} entries need ${gigabytes(needed)}: give fewer --entries, or a TMPDIR on a larger disk`,
  );
}

async function createBenchDatabase(servers: BenchServers, name: string): Promise<string> {
  await administer(servers.postgres.url, `CREATE DATABASE ${name}`);
  const url = new URL(servers.postgres.url);
  url.pathname = `/${name}`;
  await migrate(url.href);
  return url.href;
}

/** The median rates of the worker's statements in the ledger of years, against those in one with openings only. */
async function measureWriting(full: string, empty: string, { quietAccounts }: History): Promise<void> {
  const rates = {
    full: [] as Awaited<ReturnType<typeof measureWrites>>[],
    empty: [] as Awaited<ReturnType<typeof measureWrites>>[],
  };
  for (let round = 1; round <= WRITE_ROUNDS; round += 1) {
    rates.empty.push(await measureWrites(empty, quietAccounts, WRITES, round));
    rates.full.push(await measureWrites(full, quietAccounts, WRITES, round));
  }
  const of = (runs: typeof rates.full, key: keyof WriteRates) => median(runs.map((run) => run[key]));
  for (const [what, rate, wal] of [
    ['records', 'recorded', 'recordedWalBytes'],
    ['hashes', 'hashed', 'hashedWalBytes'],
  ] as const) {
    const [inFull, inEmpty] = [of(rates.full, rate), of(rates.empty, rate)];
    judge(
      `the worker ${what} entries: in this ledger, in an empty one`,
      `${whole(inFull)}/s, ${whole(inEmpty)}/s: ${whole((100 * inFull) / inEmpty)} %`,
      `≥ ${100 * WRITE_SHARE_MIN} %`,
      inFull >= WRITE_SHARE_MIN * inEmpty,
    );
    tell(
      'write-ahead log for it, right after a checkpoint',
      `${whole(of(rates.full, wal))} bytes an entry, ${whole(of(rates.empty, wal))}`,
    );
  }
}

/** Settled as in operation: with statistics, a visibility map, and nothing that waits to be written. */
async function measureVerify(client: Client, { entries }: History): Promise<void> {
  const found: Verification[] = [];
  let saidAtMs = performance.now();
  const took = await seconds(async () => {
    const all = await verify(client, ({ ledgerEntries }) => {
      if (performance.now() - saidAtMs < 60_000) return;
      saidAtMs = performance.now();
      console.log(`verify: ${whole(ledgerEntries)} entries`);
    });
    found.push(all);
  });
  const [{ offendingAccounts, unchainedEntries, ledgerEntries }] = found as [Verification];
  judge(
    'verify',
    `${short(took)} s, ${short((took * 1e6) / ledgerEntries)} s for a million entries`,
    'verified, all hashed',
    offendingAccounts === 0 && unchainedEntries === 0 && ledgerEntries >= entries,
  );
}

async function measureSince(client: Client, heads: readonly ChainHead[], what: string): Promise<void> {
  async function* pages() {
    for (let first = 0; first < heads.length; first += 10_000) yield heads.slice(first, first + 10_000);
  }
  let found: Awaited<ReturnType<typeof verifySince>> | undefined;
  const took = await seconds(async () => {
    found = await inSnapshot(client, PLAN_SINCE, () => verifySince(client, pages()));
  });
  judge(
    `verify --since heads of ${what}`,
    `${short(took)} s for ${whole(found?.ledgerEntries ?? 0)} new entries and ${whole(found?.accounts ?? 0)} accounts`,
    'verified',
    found?.offendingAccounts === 0 && found.unchainedEntries === 0 && found.accountsWithoutHead === 0,
  );
}

async function headsOf(client: Client): Promise<ChainHead[]> {
  const heads: ChainHead[] = [];
  const took = await seconds(async () => {
    for await (const page of listChainHeads(client)) heads.push(...page);
  });
  tell('heads', `${short(took)} s for ${whole(heads.length)}`);
  return heads;
}

const servers = await startPostgresOnly();
const over = interruptible(() => servers.reaper.close());
try {
  checkDisk(servers.folder);
  const url = await createBenchDatabase(servers, 'bench_years');
  const empty = await createBenchDatabase(servers, 'bench_empty');
  await fillOpenings(empty, accountsFor(wanted));
  const history = await fillYears(url, wanted, 60 * fillMinutes, console.log);
  const client = await openClient(url, 'bench');
  await afterFill(client);
  tell('entries; accounts', `${whole(history.entries)}; ${whole(history.quietAccounts + 2)}`);
  await measureVacuum(bounds, client);
  await client.query('VACUUM ANALYZE account, hold');
  await administer(empty, 'VACUUM ANALYZE', 'CHECKPOINT');
  await measureSizes(bounds, client, history);
  await measureReading(bounds, url, history, servers);
  const heads = await headsOf(client);
  await measureWriting(url, empty, history);
  await measureSince(client, heads, 'before these writes');
  await measureSince(client, await headsOf(client), 'now');
  await measureNewVacuum(bounds, client);
  await measureVerify(client, history);
  await client.end();
} finally {
  over();
  await servers.stop();
}
report();
