// What is answered is garbage at once: V8 frees it where it was made. Where answers are linked to
// later ones, it moves each of them to the old generation first, at a quarter of the whole rate:
// docs/decisions/031-garbage-in-chains.md.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, it } from 'vitest';
import { SERVICE_NODE_OPTIONS } from '../../src/shared/node-options.mjs';
import {
  cleanUp,
  createBroker,
  createDatabase,
  environmentOf,
  INHERITED,
  insertAccounts,
  onCleanUp,
} from '../support/harness.ts';
import { endsWithUs } from '../support/reaper.ts';

afterEach(cleanUp);

const API = fileURLToPath(new URL('../../src/api/main.ts', import.meta.url));
const CONNECTIONS = 64;
/** A link begins where a collection meets a request in flight twice: by chance, every few seconds. */
const UPDATES = 60_000;
/** About 1,500 without links, and 5,500 with them. */
const BYTES_PER_UPDATE_MAX = 2500;
/** `Scavenge 54.3 (99.9) -> 48.4 (99.9) MB`, and the same of a collection of everything. */
const COLLECTION = /(Scavenge|Mark-Compact)[^\n]*? ([\d.]+) \([\d.]+\) -> ([\d.]+) \(/g;

it('moves little of an answer to the old generation', { timeout: 180_000 }, async () => {
  const database = await createDatabase();
  await insertAccounts(database, 'hot');
  const child = spawn(process.execPath, [...SERVICE_NODE_OPTIONS, '--trace-gc', API], {
    env: { ...INHERITED, ...environmentOf(database, createBroker(), { RELAY: 'off' }) },
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  });
  endsWithUs(child);
  const stdout = child.stdout as Readable;
  const output = text(stdout);
  const gone = once(child, 'exit');
  onCleanUp(async () => {
    child.kill('SIGKILL');
    await gone;
  });
  const { port } = await portOf(stdout);
  const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS });
  onCleanUp(async () => agent.destroy());
  const body = JSON.stringify({ accountId: 'hot', amount: 1 });
  const update = async (): Promise<void> => {
    const headers = { 'content-type': 'application/json', 'content-length': body.length };
    const sent = request({ port, path: '/v1/balance-updates', method: 'POST', agent, headers });
    sent.end(body);
    const [response] = await once(sent, 'response');
    expect(response.statusCode).toBe(200);
    response.resume();
    await once(response, 'end');
  };
  let left = UPDATES;
  await Promise.all(
    Array.from({ length: CONNECTIONS }, async () => {
      for (; left > 0; left -= 1) await update();
    }),
  );
  child.kill('SIGTERM');
  await gone;

  const collections = [...(await output).matchAll(COLLECTION)].map(([, kind, , after]) => ({
    kind,
    mb: Number(after),
  }));
  let movedMb = 0;
  for (const [index, { kind, mb }] of collections.entries()) {
    const before = collections[index - 1];
    if (kind === 'Scavenge' && before) movedMb += Math.max(0, mb - before.mb);
  }
  expect(collections.length).toBeGreaterThan(20);
  expect((movedMb * 1e6) / UPDATES).toBeLessThan(BYTES_PER_UPDATE_MAX);
});

async function portOf(stdout: Readable): Promise<{ port: number }> {
  let said = '';
  for (;;) {
    const [chunk] = await once(stdout, 'data');
    said += chunk;
    const line = said.split('\n').find((one) => one.includes('"api started"') && one.endsWith('}'));
    if (line) return JSON.parse(line);
  }
}
