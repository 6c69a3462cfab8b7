// Notices that the npm (or pnpm, yarn) that runs this process as a script has ended. npm passes
// SIGTERM on to its shell, which does not forward it, and SIGKILL reaches no child: without this,
// the script would keep running alone. Built-ins only and plain JavaScript, because it runs on the
// machine's own Node (>= 18).
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

const LOOK_INTERVAL_MS = 500;
const SHELLS_MAX = 3;
const PACKAGE_MANAGER = /^(npm|npx|pnpm|yarn)\b|\/(npm-cli|npx-cli|npm|npx|pnpm|yarn)(\.c?js)?(\s|$)/;
const SHELL = /^(\S*\/)?\w*sh -c\s/;

let isWatching = false;

/** Calls back once, within a second. Does nothing when no package manager runs this process. Idempotent. */
export function onceNpmIsGone(callback) {
  const parents = isWatching ? undefined : parentsUpToNpm();
  if (!parents) return;
  isWatching = true;
  const timer = setInterval(() => {
    if (parents.every(([pid, parent]) => parentOf(pid) === parent)) return;
    clearInterval(timer);
    callback();
  }, LOOK_INTERVAL_MS);
  timer.unref();
}

/** Pairs of a process and its parent, from this one through the shells to npm; undefined when npm is not above them. */
function parentsUpToNpm() {
  const pairs = [];
  for (let pid = process.pid; pairs.length <= SHELLS_MAX; ) {
    const parent = parentOf(pid);
    const command = parent === undefined ? '' : commandOf(parent);
    pairs.push([pid, parent]);
    if (PACKAGE_MANAGER.test(command)) return pairs;
    if (!SHELL.test(command)) return undefined;
    pid = parent;
  }
  return undefined;
}

function parentOf(pid) {
  if (pid === process.pid) return process.ppid;
  if (process.platform !== 'linux') return Number(ps('ppid=', pid)) || undefined;
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is the command in brackets and may itself contain brackets and blanks.
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    return undefined;
  }
}

function commandOf(pid) {
  if (process.platform !== 'linux') return ps('command=', pid);
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}

function ps(column, pid) {
  return spawnSync('ps', ['-o', column, '-p', String(pid)], { encoding: 'utf8' }).stdout?.trim() ?? '';
}
