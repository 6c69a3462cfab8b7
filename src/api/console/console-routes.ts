// /console: a page that shows the service live, and its files. All of it comes from this process: it works without internet.
// The page itself is open, what it shows is not: its calls carry the key that the person gave it.
import type { RequestHandler } from 'express';
import type { Pool } from '../../shared/database.ts';
import { found, idOf, inDatabase } from '../calls/account-request.ts';
import { sendJson } from '../http/json-answer.ts';
import { type PageFile, pageFile, pageFiles } from '../http/page-files.ts';
import { readBalancePoints } from './balance-points.ts';

const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  ...["script-src 'self'", "connect-src 'self'", "style-src 'self'", "img-src 'self' data:"],
  ...["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"],
].join('; ');

const SCRIPTS = [
  'console.js',
  'key.js',
  'stream.js',
  'live.js',
  'account.js',
  'try.js',
  'attempt.js',
  'follow.js',
  'steps.js',
  'plot.js',
  'show.js',
];
const own = (name: string, type: string): PageFile => ({
  type: `${type}; charset=utf-8`,
  from: () => new URL(`page/${name}`, import.meta.url),
});
const ofUplot = (name: string, type: string): PageFile => ({
  type: `${type}; charset=utf-8`,
  from: () => import.meta.resolve(`uplot/dist/${name}`),
});
const FILES = {
  ...Object.fromEntries(SCRIPTS.map((name) => [name, own(name, 'text/javascript')])),
  'console.css': own('console.css', 'text/css'),
  'icon.svg': own('icon.svg', 'image/svg+xml'),
  'uplot.js': ofUplot('uPlot.esm.js', 'text/javascript'),
  'uplot.css': ofUplot('uPlot.min.css', 'text/css'),
};
/** A page and scripts of two releases do not fit. */
const CACHE_CONTROL = 'no-cache';

export function consoleRoutes({ pool }: { pool: Pool }): Record<'page' | 'file' | 'balances', RequestHandler> {
  const sendHtml = pageFile(own('console.html', 'text/html'), CACHE_CONTROL);
  return {
    page(_request, response) {
      response.setHeader('content-security-policy', CONTENT_SECURITY_POLICY);
      response.setHeader('referrer-policy', 'no-referrer');
      return sendHtml(response);
    },
    file: pageFiles(FILES, CACHE_CONTROL),
    async balances(request, response) {
      const id = idOf(request);
      sendJson(response, found(id, await inDatabase(() => readBalancePoints(pool, id))));
    },
  };
}
