// A stop goes on listening for DRAIN_MS_MIN: load balancers that learn late of it, as those of Kubernetes do, refuse nobody.
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, expect, it } from 'vitest';
import {
  cleanUp,
  createBroker,
  createDatabase,
  environmentOf,
  send,
  spawnProcess,
  until,
  untilReady,
} from '../support/harness.ts';

afterEach(cleanUp);

const DRAIN_MS = 2000;
/** As long as endpoints of Kubernetes were seen to lag. */
const LATE_MS = 1500;
/** Longer than that pause. */
const STILL_MS = 1000;
const EVERY_MS = 300; // above the pause after which a stop takes the clients for gone

it.each([{ processes: '1' }, { processes: '2' }])(
  'an idle API of $processes processes answers anyone who comes for DRAIN_MS_MIN, and not much longer',
  async ({ processes }) => {
    const extra = { DRAIN_MS_MIN: String(DRAIN_MS), API_PROCESSES: processes };
    const api = await spawnProcess('api', environmentOf(await createDatabase(), createBroker(), extra));
    await untilReady(api.url());
    const exited = once(api.child, 'exit');
    const stoppedAtMs = performance.now();
    api.child.kill('SIGTERM');
    const answers: unknown[] = [];
    while (performance.now() < stoppedAtMs + LATE_MS) {
      await delay(EVERY_MS);
      const late = await send(api.url(), 'GET', '/readyz').catch((error) => error.cause);
      answers.push([late.status ?? late.code, late.body?.status, late.headers?.get('connection')]);
    }
    expect(answers.length).toBeGreaterThan(3);
    expect(new Set(answers.map((answer) => JSON.stringify(answer)))).toEqual(new Set(['[503,"stopping","close"]']));
    expect(await exited).toEqual([0, null]);
    const tookMs = performance.now() - stoppedAtMs;
    expect(tookMs).toBeGreaterThanOrEqual(DRAIN_MS);
    expect(tookMs).toBeLessThan(DRAIN_MS + 6000); // a busy machine
  },
);

it('an API that stood still while it stopped answers anyone who came meanwhile', async () => {
  const api = await spawnProcess('api', environmentOf(await createDatabase(), createBroker()));
  await untilReady(api.url());
  const exited = once(api.child, 'exit');
  api.child.kill('SIGTERM');
  await until('it stops', async () => (await send(api.url(), 'GET', '/readyz')).body.status === 'stopping');
  api.child.kill('SIGSTOP');
  const arriving = Array.from({ length: 150 }, () => send(api.url(), 'GET', '/openapi.json'));
  await delay(STILL_MS);
  api.child.kill('SIGCONT');
  const answers = await Promise.all(arriving.map((answer) => answer.catch((error) => error.cause)));
  expect(new Set(answers.map(({ status, code }) => status ?? code))).toEqual(new Set([200]));
  expect(await exited).toEqual([0, null]);
});
