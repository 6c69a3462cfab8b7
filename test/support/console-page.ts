// The console in a real browser, and what goes wrong in it.
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';

const DESKTOP = { width: 1200, height: 900 };

export interface ConsolePages {
  /** Errors but refusals, which the page shows itself, and requests to anyone but the service. */
  problems: string[];
  /**
   * Opens a place of the page and waits until it is connected. `token` null: without a key, it
   * waits for nothing.
   */
  open(place: string, token: string | null, context?: BrowserContextOptions): Promise<Page>;
}

export function consolePages(browser: Browser, url: string): ConsolePages {
  const problems: string[] = [];
  return {
    problems,
    async open(place, token, options = {}) {
      const context = await browser.newContext({ viewport: DESKTOP, ...options });
      const page = await context.newPage();
      page.on('pageerror', (error) => problems.push(error.message));
      page.on('console', (message) => {
        if (message.type() === 'error' && !/status of (40[01349]|503)/.test(message.text()))
          problems.push(message.text());
      });
      page.on('request', (request) => {
        if (!request.url().startsWith(url)) problems.push(`asked ${request.url()}`);
      });
      await page.goto(`${url}/console${place}`);
      if (token === null) return page;
      await page.getByLabel('Key', { exact: true }).fill(token);
      await page.getByRole('button', { name: 'Use it' }).click();
      await connected(page);
      return page;
    },
  };
}

/** It shows what is now, and sees what is published from now on. @throws with what it shows instead. */
export async function connected(page: Page): Promise<void> {
  for (const id of ['link', 'broker']) {
    const place = page.locator(`#${id}`);
    await page
      .locator(`#${id}`, { hasText: /^connected$/ })
      .waitFor({ state: 'attached' })
      .catch(async (cause) => {
        const shown = await Promise.all([place.innerText(), page.locator('#stale').innerText()]);
        throw new Error(`the console shows ${JSON.stringify(shown)}`, { cause });
      });
  }
}

/** How many pixels of the plots of a place have about the colour that the page gives a name. */
export function pixelsOf(page: Page, placeId: string, colour: string): Promise<number> {
  return page.evaluate(`(() => {
    const probe = document.createElement('i');
    probe.style.color = 'var(--${colour})';
    document.body.append(probe);
    const wanted = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(Number);
    probe.remove();
    let found = 0;
    for (const canvas of document.querySelectorAll('#${placeId} canvas')) {
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      for (let at = 0; at < data.length; at += 4) {
        const isLike = wanted.every((part, index) => Math.abs(data[at + index] - part) < 12);
        if (isLike && data[at + 3] > 128) found += 1;
      }
    }
    return found;
  })()`);
}
