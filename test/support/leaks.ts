// Fails a test file that leaves something behind: a clean-up that nobody called, a process, a
// server or a connection of its own. What it leaves would slow down and confuse the files after it.
import { readdirSync, readFileSync } from 'node:fs';
import { afterAll } from 'vitest';
import { cleanupsLeft, until } from './harness.ts';

/** For what ends a moment after it was told to. */
const PATIENCE_MS = 20_000;
/** Ends after this process and cleans up after it (reaper.ts). */
const REAPER = /\breaper\.ts\b/;
const NETWORK = new Set(['TCPSocketWrap', 'TCPServerWrap', 'TLSWrap']);

/** Command lines; none where there is no /proc. */
function childProcesses(): string[] {
  const tasks = `/proc/${process.pid}/task`;
  const pids = listOf(tasks).flatMap((task) => textOf(`${tasks}/${task}/children`).split(' '));
  const commands = pids.filter(Boolean).map((pid) => textOf(`/proc/${pid}/cmdline`).replaceAll('\0', ' ').trim());
  // Without a command line: it has ended already.
  return commands.filter((command) => command !== '' && !REAPER.test(command));
}

function listOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

interface Dispatcher {
  destroy(): Promise<void>;
}

/** fetch keeps connections open for the next request. */
async function closeConnectionsOfFetch(): Promise<void> {
  const name = Symbol.for('undici.globalDispatcher.1');
  await (globalThis as { [name: symbol]: Dispatcher | undefined })[name]?.destroy();
}

afterAll(async () => {
  const clean = cleanupsLeft();
  if (clean > 0) throw new Error(`The file leaves ${clean} clean-ups undone: afterAll(cleanUp)`);
  await closeConnectionsOfFetch();
  const left = () => [
    ...childProcesses().map((command) => `process ${command}`),
    ...process.getActiveResourcesInfo().filter((kind) => NETWORK.has(kind)),
  ];
  await until('it has ended', () => left().length === 0, PATIENCE_MS).catch(() => {
    throw new Error(`The file leaves behind: ${left().join('; ')}`);
  });
});
