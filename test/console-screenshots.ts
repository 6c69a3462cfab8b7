// npm run console:screenshots: the console at rest, under 1,000 updates a second, and with RabbitMQ
// killed, on servers of its own. Writes docs/console/*.png. Needs Chromium (test/browser.ts).
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Page } from 'playwright-core';
import { takesNoOptions } from '../src/cli/command-line.ts';
import { accountId, HOT_ACCOUNT } from './bench/accounts.ts';
import { createDatabase, createTemplate } from './bench/database.ts';
import type { Flood } from './bench/flood.ts';
import { interruptible } from './bench/interrupt.ts';
import { keeperOf } from './bench/processes.ts';
import { startServers } from './bench/servers.ts';
import { startSystem } from './bench/system.ts';
import { ours } from './bench/variants.ts';
import { openBrowser } from './support/browser.ts';

takesNoOptions(`usage: npm run console:screenshots

Writes docs/console/*.png: the console at rest, under load and with RabbitMQ killed, on servers of its own. About two
minutes. Needs Chromium (apt-get install chromium, or name it in CHROMIUM).`);

const FOLDER = fileURLToPath(new URL('../docs/console/', import.meta.url));
const LOAD_SECONDS = 40;
const SHOWN_SECONDS = 30;
const RATE = 1000;

/** A transfer, and what becomes of each leg. */
async function shootTry(page: Page, url: string): Promise<void> {
  await page.goto(`${url}/console#try`);
  const steps = page.locator('#steps > li');
  const update = page.getByRole('form', { name: 'Update' });
  await update.getByLabel('Account').fill(HOT_ACCOUNT);
  await update.getByRole('button', { name: 'Post' }).click();
  await steps.filter({ hasText: 'recorded' }).waitFor();
  const transfer = page.getByRole('form', { name: 'Transfer' });
  await transfer.getByLabel('From').fill(HOT_ACCOUNT);
  await transfer.getByLabel('To').fill(accountId(1));
  await transfer.getByRole('button', { name: 'Transfer' }).click();
  await steps.filter({ hasText: `Event of ${accountId(1)}, as` }).waitFor();
  await delay(1000);
  await page.screenshot({ path: `${FOLDER}try-it.png` });
}

const servers = await startServers(console.log);
const over = interruptible(() => servers.reaper.close());
const browser = await openBrowser();
try {
  const keeper = keeperOf(servers.reaper);
  await createTemplate(servers.postgres.url);
  const variant = { ...ours(), pipeline: 'running' as const };
  const system = await startSystem({ servers, keeper }, await createDatabase(servers.postgres.url, variant), variant);
  mkdirSync(FOLDER, { recursive: true });
  const context = await browser.newContext({ viewport: { width: 1200, height: 860 } });
  const page = await context.newPage();
  await page.goto(`${system.url}/console`);
  const shoot = (name: string) => page.screenshot({ path: `${FOLDER}${name}.png` });
  await delay(8000);
  await shoot('at-rest');
  await shootTry(page, system.url);

  await page.goto(`${system.url}/console#live`);
  await page.reload(); // or the plots would show what came before
  await delay(3000);
  const flood: Flood = { url: system.url, accountId: HOT_ACCOUNT, seconds: LOAD_SECONDS, rate: RATE, connections: 64 };
  const load = spawn(process.execPath, [
    fileURLToPath(new URL('bench/flood.ts', import.meta.url)),
    JSON.stringify(flood),
  ]);
  keeper.keep(load);
  const loaded = once(load, 'exit');
  await delay(SHOWN_SECONDS * 1000);
  await shoot('under-load');
  for (const pid of servers.broker.pids) process.kill(pid, 'SIGKILL');
  await page.locator('#broker', { hasText: 'disconnected' }).waitFor();
  await delay(4000);
  await shoot('broker-stopped');
  await loaded;

  const phone = await browser.newContext({ viewport: { width: 390, height: 844 }, colorScheme: 'dark' });
  const small = await phone.newPage();
  await small.goto(`${system.url}/console#account=${HOT_ACCOUNT}`);
  await small.locator('#verified', { hasText: /yes|no/ }).waitFor();
  await delay(1500);
  await small.screenshot({ path: `${FOLDER}account-phone-dark.png` });
  await system.end().catch(() => {}); // its broker is gone
} finally {
  await browser.close();
  over();
  await servers.stop();
}
