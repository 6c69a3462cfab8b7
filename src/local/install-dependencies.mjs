// Installs the dependencies when they are missing or differ from the lock file. Two at once: the second waits.
// Built-ins only and plain JavaScript, because it runs on the machine's own Node (>= 18).
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { takeLock } from './process-lock.mjs';

const CLONE_DIR = fileURLToPath(new URL('../../', import.meta.url));
export const NODE_MAJOR = 24;
const LOCK_POLL_INTERVAL_MS = 200;
const LOCK_TIMEOUT_MS = 600_000;
const PROGRESS_INTERVAL_MS = 5_000;
const TAIL_LINES = 15;

/**
 * Undefined if everything is there afterwards, otherwise a sentence for people. Returns quickly if
 * nothing is missing.
 */
export async function installDependencies(root = CLONE_DIR) {
  if (isInstalled(root)) return nodeProblem(root, { run: false });
  const lock = await waitForLock(path.join(root, '.data', 'install.lock'));
  if (typeof lock === 'string') return lock;
  try {
    if (isInstalled(root)) return nodeProblem(root, { run: false }); // by the one we waited for
    const problem = await npmCi(root);
    return problem ?? nodeProblem(root, { run: true });
  } finally {
    lock.release();
  }
}

/** Whether node_modules holds what the lock file says. npm writes its own copy of the lock file at the very end. */
export function isInstalled(root) {
  const wanted = path.join(root, 'package-lock.json');
  const present = path.join(root, 'node_modules', '.package-lock.json');
  if (!existsSync(present)) return false;
  if (statSync(present).mtimeMs >= statSync(wanted).mtimeMs) return true;
  // Git gives a file a new time on each checkout, even if its content is unchanged.
  return holdsSamePackages(packagesOf(wanted), packagesOf(present));
}

function packagesOf(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8')).packages ?? {};
  } catch {
    return {};
  }
}

function holdsSamePackages(wanted, present) {
  const isSame = ([folder, { integrity, version }]) =>
    wanted[folder]?.version === version && wanted[folder]?.integrity === integrity;
  const isThere = ([folder, { optional, devOptional }]) => folder === '' || present[folder] || optional || devOptional;
  return Object.entries(present).every(isSame) && Object.entries(wanted).every(isThere);
}

async function waitForLock(file) {
  const startedAt = Date.now();
  for (let isSaid = false; ; isSaid = true) {
    let lock;
    try {
      lock = takeLock(file);
    } catch (error) {
      return `The dependencies must be installed, but ${path.dirname(file)} is not writable (${error.code ?? error.message}).`;
    }
    if (lock.release) return lock;
    if (!isSaid) console.log(`Waiting for another installation in this folder (process ${lock.holder.pid})`);
    if (Date.now() - startedAt > LOCK_TIMEOUT_MS) {
      return `Another installation in this folder (process ${lock.holder.pid}) does not finish: stop it and try again.`;
    }
    await delay(LOCK_POLL_INTERVAL_MS);
  }
}

/** Undefined, or what went wrong. */
async function npmCi(root) {
  const startedAt = Date.now();
  const seconds = () => Math.round((Date.now() - startedAt) / 1000);
  console.log('Installing dependencies (npm ci), about half a minute');
  const progress = setInterval(() => console.log(`  still installing (${seconds()} s)`), PROGRESS_INTERVAL_MS);
  const { command, args } = npmCommand();
  // Node and PostgreSQL bring their programs by install scripts; developer tools are needed
  // whatever NODE_ENV says; the warning that this Node is too old for the scripts would only
  // confuse.
  const flags = ['ci', '--include=dev', '--ignore-scripts=false', '--no-audit', '--no-fund', '--loglevel=error'];
  const child = spawn(command, [...args, ...flags], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
    shell: process.platform === 'win32',
  });
  let output = '';
  child.stdout.on('data', (chunk) => (output += chunk));
  child.stderr.on('data', (chunk) => (output += chunk));
  const ended = await new Promise((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('close', (code, signal) => resolve(code === 0 ? undefined : (signal ?? `exit code ${code}`)));
  });
  clearInterval(progress);
  if (ended === undefined) {
    console.log(`Installed in ${seconds()} s`);
    return undefined;
  }
  const tail = output.trim().split('\n').slice(-TAIL_LINES).join('\n');
  return `${tail}\n\nInstalling the dependencies failed (npm ci: ${ended}): see above, then run the same command again.`;
}

// The npm that runs this script, whatever the PATH says; not a yarn or pnpm, which know nothing of `ci`.
function npmCommand() {
  const script = process.env.npm_execpath;
  const isNpm = script !== undefined && /npm-cli\.c?js$/.test(script);
  return isNpm ? { command: process.execPath, args: [script] } : { command: 'npm', args: [] };
}

function nodeProblem(root, { run }) {
  if (Number(process.versions.node.split('.')[0]) >= NODE_MAJOR) return undefined;
  const program = path.join(root, 'node_modules', '.bin', 'node');
  const version = run ? spawnSync(program, ['--version'], { encoding: 'utf8' }).stdout?.trim() : undefined;
  if (run ? version?.startsWith(`v${NODE_MAJOR}.`) : existsSync(program)) return undefined;
  return `${program} is ${version || 'missing'}, Node ${NODE_MAJOR} is required: delete node_modules and run the same command again.`;
}
