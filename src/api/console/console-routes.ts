// /console: a page that shows the service live, and its files. All of it comes from this process: it works without internet.
// The page itself is open, what it shows is not: its calls carry the key that the person gave it.
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { RequestHandler } from 'express';
import type { Pool } from '../../shared/database.ts';
import { found, idOf, inDatabase } from '../http/account-request.ts';
import { sendJson } from '../http/json-answer.ts';
import { sendProblem } from '../http/problems.ts';
import { readBalancePoints } from './balance-points.ts';

const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  ...["script-src 'self'", "connect-src 'self'", "style-src 'self'", "img-src 'self' data:"],
  ...["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"],
].join('; ');

const own = (name: string) => new URL(`page/${name}`, import.meta.url);
const FILES: Record<string, { url: () => URL | string; type: string }> = {
  ...Object.fromEntries(
    ['console.js', 'key.js', 'stream.js', 'live.js', 'account.js', 'try.js', 'plot.js', 'show.js'].map((name) => [
      name,
      { url: () => own(name), type: 'text/javascript' },
    ]),
  ),
  'console.css': { url: () => own('console.css'), type: 'text/css' },
  'icon.svg': { url: () => own('icon.svg'), type: 'image/svg+xml' },
  'uplot.js': { url: () => import.meta.resolve('uplot/dist/uPlot.esm.js'), type: 'text/javascript' },
  'uplot.css': { url: () => import.meta.resolve('uplot/dist/uPlot.min.css'), type: 'text/css' },
};

export function consoleRoutes({ pool }: { pool: Pool }): Record<'page' | 'file' | 'balances', RequestHandler> {
  const contents = new Map<string, Promise<Buffer>>();
  /** A failure is not kept. */
  function read(key: string, url: URL | string): Promise<Buffer> {
    const content = contents.get(key) ?? readFile(fileURLToPath(url));
    contents.set(key, content);
    content.catch(() => contents.delete(key));
    return content;
  }
  async function send(response: Parameters<RequestHandler>[1], type: string, content: Promise<Buffer>): Promise<void> {
    const body = await content;
    response.setHeader('content-type', `${type}; charset=utf-8`);
    response.setHeader('content-length', body.length);
    response.setHeader('cache-control', 'no-cache'); // a page and scripts of two releases do not fit
    response.setHeader('x-content-type-options', 'nosniff');
    response.end(body);
  }
  return {
    page(_request, response) {
      response.setHeader('content-security-policy', CONTENT_SECURITY_POLICY);
      response.setHeader('referrer-policy', 'no-referrer');
      return send(response, 'text/html', read('', own('console.html')));
    },
    file(request, response) {
      const name = String(request.params.file);
      const known = Object.hasOwn(FILES, name) ? FILES[name] : undefined;
      if (!known) return sendProblem(response, 'not_found');
      return send(response, known.type, read(name, known.url()));
    },
    async balances(request, response) {
      const id = idOf(request);
      sendJson(response, found(id, await inDatabase(() => readBalancePoints(pool, id))));
    },
  };
}
