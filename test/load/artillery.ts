// artillery: installed on first use, run on the scenario.
import { spawn } from 'node:child_process';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { installDependencies, isInstalled } from '../../src/local/install-dependencies.mjs';
import { SetupProblem } from '../../src/local/setup-problem.ts';
import type { LoadSettings } from './settings.ts';

export const LOAD_DIR = fileURLToPath(new URL('.', import.meta.url));
const OUTPUT_LINES_MAX = 40;

/** @throws SetupProblem when npm fails. */
export async function installArtillery(): Promise<void> {
  if (isInstalled(LOAD_DIR)) return;
  console.log('The load generator, artillery, is used for the first time: 470 MB go to test/load/node_modules');
  const problem = await installDependencies(LOAD_DIR);
  if (problem) throw new SetupProblem(problem);
}

export interface ArtilleryResult {
  /** Whether all its strict conditions hold. */
  isGood: boolean;
  /**
   * What it says about each condition: `ok: ...`, `fail: ...`, or `missed: ...` of one that is a
   * target alone.
   */
  conditions: string[];
}

/**
 * One run of the scenario.
 * @param recordFile gets a line for each request, see recorder.mts.
 * @param outputFile gets artillery's own report.
 * @throws SetupProblem with its output when it did not get as far as checking its conditions.
 */
export async function runArtillery(
  settings: LoadSettings,
  accountId: string,
  recordFile: string,
  outputFile: string,
): Promise<ArtilleryResult> {
  await rm(recordFile, { force: true });
  const { ratePerSecond, durationS, requests, accepted, declined } = settings;
  const variables = { accountId, ratePerSecond, durationS, requests, accepted, declined };
  const child = spawn(
    process.execPath,
    [
      path.join(LOAD_DIR, 'node_modules', 'artillery', 'bin', 'run'),
      ...['run', '--quiet', '--target', settings.url, '--variables', JSON.stringify(variables)],
      ...['--output', outputFile, path.join(LOAD_DIR, 'scenario.yml')],
    ],
    { cwd: LOAD_DIR, env: environment(recordFile), stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let output = '';
  child.stdout.on('data', (chunk) => (output += chunk));
  child.stderr.on('data', (chunk) => (output += chunk));
  const exitCode = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve(code ?? 1));
  });
  const lines = output.trim().split('\n');
  const conditions = lines
    .filter((line) => /^(ok|fail): /.test(line))
    .map(verdictOf)
    .sort();
  if (conditions.length === 0) {
    throw new SetupProblem(`${lines.slice(-OUTPUT_LINES_MAX).join('\n')}\n\nartillery failed: see above.`);
  }
  return { isGood: exitCode === 0, conditions };
}

/** artillery calls a target that was missed a failure too. */
export const verdictOf = (line: string): string =>
  line.endsWith('(optional)') ? line.replace(/^fail: /, 'missed: ') : line;

function environment(recordFile: string): NodeJS.ProcessEnv {
  return {
    ...process.env,
    RECORD_FILE: recordFile,
    ARTILLERY_DISABLE_TELEMETRY: '1',
    // One thread: several would share out the requests and round, and each has a pool of
    // connections of its own.
    WORKERS: '1',
    NO_COLOR: '1',
    // artillery sends its requests through the proxy of the environment, also those to this
    // machine.
    HTTP_PROXY: undefined,
    HTTPS_PROXY: undefined,
  };
}
