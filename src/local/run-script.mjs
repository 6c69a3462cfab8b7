// Runs the script that this process was started with, once its dependencies are there: in this
// process if it is Node 24, otherwise in a child process with the Node that came with them. The
// child gets the arguments, the terminal and the signals, and its exit code is passed on. Plain
// JavaScript, because it runs on the machine's own Node (>= 18).
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { onceNpmIsGone } from '../shared/npm-gone.mjs';
import { installDependencies, NODE_MAJOR } from './install-dependencies.mjs';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

export async function runScript() {
  const [file, ...args] = process.argv.slice(2);
  const problem = file === undefined ? 'Name the file to run, as package.json does.' : await installDependencies();
  if (problem) {
    console.error(problem);
    process.exitCode = 1;
    return;
  }
  const script = path.join(ROOT, file);
  if (Number(process.versions.node.split('.')[0]) >= NODE_MAJOR) await runHere(script, args);
  else runOnOwnNode(script, args);
}

async function runHere(script, args) {
  process.argv = [process.execPath, script, ...args];
  onceNpmIsGone(() => process.kill(process.pid, 'SIGTERM'));
  await import(pathToFileURL(script).href);
}

function runOnOwnNode(script, args) {
  const node = path.join(ROOT, 'node_modules', '.bin', 'node');
  // The IPC channel lets it notice when this process is killed.
  const child = spawn(node, [...process.execArgv, script, ...args], {
    stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
  });
  onceNpmIsGone(() => child.kill('SIGTERM'));
  // The terminal sends Ctrl-C to both; a signal to this process alone means the script.
  for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  process.on('SIGINT', () => {});
  child.once('error', (error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
  child.once('exit', (code, signal) => process.exit(code ?? 128 + constants.signals[signal]));
}
