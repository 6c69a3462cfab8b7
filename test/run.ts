// `npm test`: types, lint and every test, each counted. The last line is `N passed, N failed`; exit
// code 1 on any failure, and when no test ran.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const HELP = `usage: npm test -- [argument of vitest]...

Checks types and lint, and runs every test, on real servers: a Docker of the machine, else its own (TEST_BACKEND=docker
or local chooses). About half an hour. One file: npx vitest run test/integration/relay.test.ts`;

const ROOT = fileURLToPath(new URL('../', import.meta.url));
const PROGRAMS = path.join(ROOT, 'node_modules', '.bin');

interface Counts {
  passed: number;
  failed: number;
  /** Names, which say why. */
  skipped: readonly string[];
}

/** The part of vitest's JSON report that is used here. */
interface Report {
  testResults: {
    status: string;
    name: string;
    message: string;
    assertionResults: { status: string; fullName: string }[];
  }[];
}

const args = process.argv.slice(2);
if (args.some((arg) => arg === '--help' || arg === '-h')) {
  console.log(HELP);
  process.exit();
}

// The terminal sends Ctrl-C to vitest as well; this process stays until its servers are gone.
let interruptedBy: NodeJS.Signals | undefined;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => (interruptedBy = signal));

const checks = await Promise.all([
  check('types', 'tsc', []),
  check('types of the console', 'tsc', ['-p', 'src/api/console/page']),
  check('lint', 'biome', ['check', '--error-on-warnings', '.']),
]);
const tests = interruptedBy ? { passed: 0, failed: 0, skipped: [] } : await runTests(args);
if (interruptedBy) {
  console.log('Interrupted');
  process.exit(128 + constants.signals[interruptedBy]);
}
const total: Counts = {
  passed: tests.passed + checks.filter(Boolean).length,
  failed: tests.failed + checks.filter((isGood) => !isGood).length,
  skipped: tests.skipped,
};
process.exitCode = total.failed === 0 ? 0 : 1;
if (total.skipped.length > 0) console.log(`${total.skipped.length} skipped:\n  ${total.skipped.join('\n  ')}`);
console.log(`${total.passed} passed, ${total.failed} failed`);

/** Shows the program's output only where it has something to complain about. */
async function check(title: string, program: string, args: string[]): Promise<boolean> {
  const startedAt = performance.now();
  const { code, output } = await run(program, args, 'collect');
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  console.log(`${title}: ${code === 0 ? 'good' : 'FAILED'} (${seconds} s)`);
  if (code !== 0) console.log(output);
  return code === 0;
}

async function runTests(args: string[]): Promise<Counts> {
  const folder = mkdtempSync(path.join(tmpdir(), 'highload-balance-report-'));
  try {
    const file = path.join(folder, 'report.json');
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`];
    const { code } = await run('vitest', ['run', ...reporters, ...args], 'show');
    return count(existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Report) : { testResults: [] }, code);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function count({ testResults }: Report, exitCode: number): Counts {
  const results = testResults.flatMap(({ assertionResults }) => assertionResults);
  const passed = results.filter(({ status }) => status === 'passed').length;
  // A file that failed without a failed test of its own: it did not load, or its set-up failed.
  const brokenFiles = testResults.filter(
    ({ status, assertionResults }) =>
      status === 'failed' && assertionResults.every((result) => result.status !== 'failed'),
  ).length;
  const failed = results.filter(({ status }) => status === 'failed').length + brokenFiles;
  const skipped = results
    .filter(({ status }) => status !== 'passed' && status !== 'failed')
    .map(({ fullName }) => fullName);
  // No tests at all, servers that did not start, an error outside of any test.
  const isUnexplained = failed === 0 && (exitCode !== 0 || passed === 0);
  if (isUnexplained) console.log(`The test run failed outside of any test (exit code ${exitCode})`);
  return { passed, failed: isUnexplained ? 1 : failed, skipped };
}

function run(program: string, args: string[], output: 'show' | 'collect'): Promise<{ code: number; output: string }> {
  const child = spawn(path.join(PROGRAMS, program), args, {
    cwd: ROOT,
    stdio: output === 'show' ? 'inherit' : ['ignore', 'pipe', 'pipe'],
    // Started without npm too, the programs run on the Node of this process.
    env: { ...process.env, PATH: `${path.dirname(process.execPath)}${path.delimiter}${process.env.PATH ?? ''}` },
  });
  const forward = (signal: NodeJS.Signals) => child.kill(signal);
  process.once('SIGTERM', forward);
  let text = '';
  child.stdout?.on('data', (chunk: Buffer) => (text += chunk));
  child.stderr?.on('data', (chunk: Buffer) => (text += chunk));
  return new Promise((resolve) => {
    const end = (code: number) => {
      process.off('SIGTERM', forward);
      resolve({ code, output: text });
    };
    child.once('error', (error) => {
      text += error.message;
      end(1);
    });
    child.once('close', (code) => end(code ?? 1));
  });
}
