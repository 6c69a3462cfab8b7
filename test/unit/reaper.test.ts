import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, it } from 'vitest';
import { isAlive, knownProcess, waitForExit } from '../../src/local/process-end.ts';

const REAPER = new URL('../support/reaper.ts', import.meta.url).href;
const OWNER = `
  import { spawn } from 'node:child_process';
  const { endsWithUs } = await import('${REAPER}');
  const child = spawn('sleep', ['300'], { stdio: 'ignore' });
  endsWithUs(child);
  console.log(child.pid);
  setInterval(() => {}, 1000);`;

it.each(['SIGKILL', 'SIGTERM'] as const)('ends what a process started that was ended by %s', async (signal) => {
  const owner = spawn(process.execPath, ['--input-type=module', '--eval', OWNER], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [pid] = await once(owner.stdout, 'data');
  const child = knownProcess(Number(pid));
  expect(child && isAlive(child)).toBe(true);
  owner.kill(signal);
  expect(child && (await waitForExit(child, 30_000))).toBe(true);
});
