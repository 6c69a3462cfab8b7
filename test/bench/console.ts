// npm run bench:console: what it costs that somebody watches, and whether the page stays responsive, at 10,000 updates a second on
// servers of its own. Prints a table; exit code 1 where a bound was missed. Needs Chromium (test/browser.ts).
import { setTimeout as delay } from 'node:timers/promises';
import type { Browser } from 'playwright-core';
import { takesNoOptions } from '../../src/cli/command-line.ts';
import { hasBrowser, openBrowser } from '../support/browser.ts';
import { accountId } from './accounts.ts';
import { createBounds } from './bounds.ts';
import { createDatabase, createTemplate } from './database.ts';
import { interruptible } from './interrupt.ts';
import { short, whole } from './numbers.ts';
import { keeperOf } from './processes.ts';
import { startServers } from './servers.ts';
import { type Bench, startSystem } from './system.ts';
import { ours } from './variants.ts';

takesNoOptions(`usage: npm run bench:console

Measures what a watching console costs, and whether its page stays responsive, at 10,000 updates a second on servers of
its own. About a minute. Prints a table; exit code 1 where a bound was missed. Needs Chromium (apt-get install chromium,
or name it in CHROMIUM).`);

const RATE = 10_000;
const ACCOUNTS = 1000;
/** In bulk: one request for each update would be a test of the load generator. */
const BULK = 200;
const UNDER_WAY_MAX = 32;
const TICK_MS = 5;
const WARM_UP_MS = 5000;
const MEASURED_MS = 15_000;
const RATE_SHARE_MIN = 0.9;
const CPU_MORE_MAX = 0.1;
/** What a person notices as an answer that was not at once. https://www.nngroup.com/articles/response-times-3-important-limits/ */
const FRAME_MS_MAX = 100;
const ACCOUNT_MS_MAX = 3000;

/** In the page: how often it draws, and how long nothing was drawn at most. */
const FRAMES = `new Promise((resolve) => {
  const startedAt = performance.now();
  let last = startedAt;
  let [longestMs, frames] = [0, 0];
  const onFrame = () => {
    const now = performance.now();
    longestMs = Math.max(longestMs, now - last);
    last = now;
    frames += 1;
    if (now - startedAt < ${MEASURED_MS}) requestAnimationFrame(onFrame);
    else resolve({ longestMs, perSecond: frames / (now - startedAt) * 1000 });
  };
  onFrame();
})`;

const { judge, report } = createBounds();

if (!hasBrowser) throw new Error('Chromium is needed: apt-get install chromium, or name it in CHROMIUM');
const servers = await startServers(console.log);
const over = interruptible(() => servers.reaper.close());
const browser = await openBrowser();
try {
  await main({ servers, keeper: keeperOf(servers.reaper) }, browser);
} finally {
  await browser.close();
  over();
  await servers.stop();
}
report();

/** Sends what is due, and no more than the service takes. */
function startLoad(url: string): { accepted(): number; stop(): Promise<{ failed: number }> } {
  const underWay = new Set<Promise<void>>();
  let [due, accepted, failed, isOver] = [0, 0, 0, false];
  async function send(first: number): Promise<void> {
    const updates = Array.from({ length: BULK }, (_, index) => ({
      accountId: accountId((first + index) % ACCOUNTS),
      amount: 1,
      reference: 'load',
    }));
    const response = await fetch(`${url}/v1/balance-updates/bulk`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ updates }),
    });
    const body = (await response.json()) as { results?: { status: number }[] };
    accepted += body.results?.filter(({ status }) => status === 200).length ?? 0;
  }
  const running = (async () => {
    for (const startedAtMs = performance.now(); !isOver; await delay(TICK_MS)) {
      const dueNow = ((performance.now() - startedAtMs) / 1000) * RATE;
      for (; due < dueNow && underWay.size < UNDER_WAY_MAX; due += BULK) {
        const request: Promise<void> = send(due)
          .catch(() => {
            failed += 1; // what was not accepted shows in the rate
          })
          .finally(() => underWay.delete(request));
        underWay.add(request);
      }
    }
    await Promise.all(underWay);
  })();
  return {
    accepted: () => accepted,
    async stop() {
      isOver = true;
      await running;
      return { failed };
    },
  };
}

async function main({ servers, keeper }: Bench, browser: Browser): Promise<void> {
  await createTemplate(servers.postgres.url);
  const variant = { ...ours(), pipeline: 'running' as const };
  const database = await createDatabase(servers.postgres.url, variant);
  const system = await startSystem({ servers, keeper }, database, variant);
  const load = startLoad(system.url);

  async function measure(): Promise<{ rate: number; cpu: number }> {
    const [cpu, accepted, atMs] = [system.cpu().api, load.accepted(), performance.now()];
    await delay(MEASURED_MS);
    const seconds = (performance.now() - atMs) / 1000;
    return { rate: (load.accepted() - accepted) / seconds, cpu: (system.cpu().api - cpu) / seconds };
  }

  await delay(WARM_UP_MS);
  const unwatched = await measure();
  const page = await (await browser.newContext({ viewport: { width: 1200, height: 860 } })).newPage();
  await page.goto(`${system.url}/console`);
  await page.locator('#broker', { hasText: /^connected$/ }).waitFor();
  await delay(WARM_UP_MS);
  const [watched, frames] = await Promise.all([
    measure(),
    page.evaluate(FRAMES) as Promise<{ longestMs: number; perSecond: number }>,
  ]);
  await page.goto('about:blank'); // or only the place within the page would change
  const askedAtMs = performance.now();
  await page.goto(`${system.url}/console#account=${accountId(7)}`);
  await page.locator('#account-view').waitFor();
  const accountMs = performance.now() - askedAtMs;
  await page.close();
  const { failed } = await load.stop();

  const cpuMore = watched.cpu - unwatched.cpu;
  const percent = (share: number) => `${whole(share * 100)} %`;
  judge(
    'nobody watches: accepted',
    `${whole(unwatched.rate)}/s`,
    `≥ ${percent(RATE_SHARE_MIN)} of ${whole(RATE)}/s`,
    unwatched.rate >= RATE * RATE_SHARE_MIN,
  );
  judge(
    'a page watches: accepted',
    `${whole(watched.rate)}/s`,
    `≥ ${percent(RATE_SHARE_MIN)} of that`,
    watched.rate >= unwatched.rate * RATE_SHARE_MIN,
  );
  judge(
    'CPU of the API, unwatched and watched',
    `${percent(unwatched.cpu)}, ${percent(watched.cpu)} of a core`,
    `≤ ${percent(CPU_MORE_MAX)} more`,
    cpuMore <= CPU_MORE_MAX,
  );
  judge(
    'the page: frames, the longest',
    `${whole(frames.perSecond)}/s, ${short(frames.longestMs)} ms`,
    `≤ ${FRAME_MS_MAX} ms`,
    frames.longestMs <= FRAME_MS_MAX,
  );
  judge(
    'the page, loaded with an account: shown after',
    `${whole(accountMs)} ms`,
    `≤ ${whole(ACCOUNT_MS_MAX)} ms`,
    accountMs <= ACCOUNT_MS_MAX,
  );
  judge('requests that broke', whole(failed), 'none', failed === 0);
  await system.end();
}
