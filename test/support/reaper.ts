// Cleans up after a test run however it ends, kill -9 and Ctrl-C included: a process of its own
// that waits for its owner's pipe to close, then ends and deletes what is still there of what it
// was given.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import readline from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { knownProcess, signal, waitForExit } from '../../src/local/process-end.ts';
import type { KnownProcess } from '../../src/shared/runtime.ts';

const KILL_TIMEOUT_MS = 10_000;
// A container whose creation was in progress when the owner died appears a moment later.
const CONTAINER_ROUNDS = 3;
const CONTAINER_ROUND_INTERVAL_MS = 500;
export const RUN_LABEL = 'highload-balance.test-run';

type Charge = { process: KnownProcess } | { mount: string } | { folder: string } | { containersOf: string };

export interface Reaper {
  add: (charge: Charge) => void;
  /** Cleans up at once; returns when it is done. */
  close: () => Promise<void>;
}

export function startReaper(): Reaper {
  const child: ChildProcess = spawn(process.execPath, [fileURLToPath(import.meta.url)], {
    stdio: ['pipe', 'ignore', 'inherit'],
    detached: true,
  });
  const exited = once(child, 'exit');
  child.unref();
  const pipe = child.stdin;
  if (!pipe) throw new Error('The reaper has no pipe');
  pipe.on('error', () => undefined);
  (pipe as unknown as { unref?: () => void }).unref?.();
  return {
    add: (charge) => pipe.write(`${JSON.stringify(charge)}\n`),
    close: async () => {
      child.ref();
      pipe.end();
      await exited;
    },
  };
}

let ofThisProcess: Reaper | undefined;

/** The child ends with this process at the latest, also where that is killed. */
export function endsWithUs(child: ChildProcess): void {
  const known = child.pid === undefined ? undefined : knownProcess(child.pid);
  if (!known) return;
  ofThisProcess ??= startReaper();
  ofThisProcess.add({ process: known });
}

async function reap(charges: Charge[]): Promise<void> {
  for (const charge of charges) if ('process' in charge) signal(charge.process, 'SIGKILL');
  for (const charge of charges) if ('process' in charge) await waitForExit(charge.process, KILL_TIMEOUT_MS);
  for (const charge of charges) if ('containersOf' in charge) await removeContainers(charge.containersOf);
  for (const charge of charges) if ('mount' in charge) spawnSync('umount', ['-l', charge.mount], { stdio: 'ignore' });
  for (const charge of charges) {
    if ('folder' in charge) rmSync(charge.folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

async function removeContainers(run: string): Promise<void> {
  // Loaded only where it is needed: it takes longer than the rest of this program together.
  const { getContainerRuntimeClient } = await import('testcontainers');
  const { dockerode } = (await getContainerRuntimeClient()).container;
  const filters = { label: [`${RUN_LABEL}=${run}`] };
  for (let round = 0; round < CONTAINER_ROUNDS; round += 1) {
    const found = await dockerode.listContainers({ all: true, filters });
    for (const { Id } of found) {
      await dockerode
        .getContainer(Id)
        .remove({ force: true, v: true })
        .catch(() => undefined); // another process is removing it
    }
    if (round > 0 && found.length === 0) return;
    await delay(CONTAINER_ROUND_INTERVAL_MS);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const charges: Charge[] = [];
  // Ends of the owner only: this process is not in its session, and nobody signals it.
  for await (const line of readline.createInterface({ input: process.stdin })) charges.push(JSON.parse(line) as Charge);
  await reap(charges);
}
