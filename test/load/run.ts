// npm run load: the load scenario against a running system, then the proof that nothing was lost.
// Exits 1 when the counts, the ledger or the books are not right.
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type pg from 'pg';
import { takesNoOptions } from '../../src/cli/command-line.ts';
import { SetupProblem } from '../../src/local/setup-problem.ts';
import { verify } from '../../src/shared/verification.ts';
import { installArtillery, LOAD_DIR, runArtillery } from './artillery.ts';
import { countOutcomes, latencyOf, parseRecording, rateOf, slicesOf } from './measurements.ts';
import { type LoadResult, renderPage, summaryRows } from './page.ts';
import { DEBIT, type LoadSettings, readLoadSettings } from './settings.ts';
import { checkReady, connectDatabase, createFundedAccount, ledgerLag, waitUntilDrained } from './system.ts';

const SLICE_MS = 250;
/** Of the rate wanted. */
const RATE_REACHED = 0.95;
const REPORT_DIR = path.join(LOAD_DIR, 'report');

const HELP = `usage: npm run load

Debits one account by ${DEBIT}, 1,000 times a second for 10 seconds, on a running system. The account starts with 10,000, so
exactly 5,000 requests are to be answered 200 and 5,000 are to be answered 400. Then waits until the audit ledger is
complete, verifies the whole database, and writes curves to test/load/report/index.html.

  BASE_URL       the API; unset, the npm start of this clone, or http://localhost:3000
  DATABASE_URL   its PostgreSQL; unset, that of the npm start of this clone
  BALANCE_TOKEN  an API key with the scopes read, write and admin, where the API wants one
  RATE           requests a second (1000)
  DURATION_S     seconds (10)`;

async function run(settings: LoadSettings): Promise<boolean> {
  await checkReady(settings.url);
  const client = await connectDatabase(settings.databaseUrl);
  try {
    await installArtillery();
    return await measure(settings, client);
  } finally {
    await client.end();
  }
}

async function measure(settings: LoadSettings, client: pg.Client): Promise<boolean> {
  const { url, token, ratePerSecond, durationS, accepted } = settings;
  await mkdir(REPORT_DIR, { recursive: true });
  const requestsFile = path.join(REPORT_DIR, 'requests.csv');
  const accountId = await createFundedAccount({ url, token }, client, accepted * DEBIT);

  console.log(`Debiting ${accountId} at ${url} by ${DEBIT}, ${ratePerSecond} times a second for ${durationS} s`);
  const startedAt = new Date().toISOString();
  const artillery = await runArtillery(settings, accountId, requestsFile, path.join(REPORT_DIR, 'artillery.json'));
  console.log('Waiting until the ledger holds every change, then verifying the database');
  const drained = await waitUntilDrained({ url, token }, accountId);
  const lag = await ledgerLag(client, accountId);
  const verification = await verify(client);

  const { requests, generatorPauseMs } = parseRecording(await readFile(requestsFile, 'utf8'));
  const outcomes = countOutcomes(requests);
  const missed = artillery.conditions.filter((line) => line.startsWith('fail: '));
  const problems = [
    ...missed.map((line) => line.replace('fail: ', 'not true: ')),
    ...(artillery.isGood || missed.length > 0 ? [] : ['artillery ended with an error']),
    // By the answers themselves, not only by artillery's counters.
    ...(outcomes['200'] === settings.accepted && outcomes['400'] === settings.declined
      ? []
      : [
          `${settings.accepted} x 200 and ${settings.declined} x 400 are wanted, seen were ${JSON.stringify(outcomes)}`,
        ]),
    ...(drained.isDrained ? [] : [`the ledger is at version ${drained.ledgerVersion} of ${drained.version}`]),
    // Of the funding and every accepted debit.
    ...(drained.version === settings.accepted + 1 ? [] : [`the account is at version ${drained.version}`]),
    ...(verification.offendingAccounts === 0
      ? []
      : [`verify: ${verification.offendingAccounts} accounts do not add up`]),
  ];
  const result: LoadResult = {
    startedAt,
    accountId,
    ...settingsShown(settings),
    sentPerSecond: rateOf(requests),
    outcomes,
    latency: latencyOf(requests),
    generatorPauseMs,
    ledgerLag: lag,
    verification,
    conditions: artillery.conditions,
    problems,
    sliceMs: SLICE_MS,
    slices: slicesOf(requests, SLICE_MS),
  };
  await writeFile(path.join(REPORT_DIR, 'result.json'), `${JSON.stringify(result, undefined, 2)}\n`);
  await writeFile(path.join(REPORT_DIR, 'index.html'), await renderPage(result));

  const slow = slowerThanWanted(result);
  const rows = summaryRows(result);
  const width = Math.max(...rows.map(([name]) => name.length));
  console.log(`\n${rows.map(([name, value]) => `  ${name.padEnd(width)}  ${value}`).join('\n')}\n`);
  for (const line of artillery.conditions) console.log(`  ${line}`);
  console.log(`\nCurves: ${path.relative(process.cwd(), path.join(REPORT_DIR, 'index.html'))}`);
  for (const problem of problems) console.error(`NOT passed: ${problem}`);
  if (problems.length === 0) console.log(slow === undefined ? 'passed' : `passed, but ${slow}`);
  return problems.length === 0;
}

/** The counts are right at any rate; the latencies are those of the rate that was reached. */
function slowerThanWanted({ sentPerSecond, ratePerSecond }: LoadResult): string | undefined {
  if (sentPerSecond >= RATE_REACHED * ratePerSecond) return undefined;
  return `this machine sent ${Math.round(sentPerSecond)} of ${ratePerSecond} requests a second: the latencies are those of that rate`;
}

function settingsShown({ url, ratePerSecond, durationS }: LoadSettings) {
  return { url, ratePerSecond, durationS };
}

takesNoOptions(HELP);
try {
  if (!(await run(readLoadSettings(process.env)))) process.exitCode = 1;
} catch (error) {
  if (!(error instanceof SetupProblem)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
