// /console: a page that shows the service live, and its files. All of it comes from this process:
// it works without internet. The page itself is open, what it shows is not: its calls carry the key
// that the person gave it.
import type { RequestHandler } from 'express';
import { found, idOf } from '../calls/account-request.ts';
import type { QueryLine } from '../calls/query-line.ts';
import { sendJson } from '../http/json-answer.ts';
import { type PageFile, pageFile, pageFiles } from '../http/page-files.ts';
import { readBalancePoints } from './balance-points.ts';

const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  ...["script-src 'self'", "connect-src 'self'", "style-src 'self'", "img-src 'self' data:"],
  ...["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"],
].join('; ');

const SCRIPTS = [
  ...['start.js', 'console.js', 'route.js', 'connection.js', 'stream.js', 'key.js', 'caller.js'],
  ...['live.js', 'tiles.js', 'events.js', 'plot.js'],
  ...['accounts.js', 'account.js', 'entries.js', 'holds.js', 'transfer.js', 'reading.js'],
  ...['try.js', 'attempt.js', 'follow.js', 'steps.js', 'show.js'],
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
export function consoleRoutes({ pages }: { pages: QueryLine }): Record<'page' | 'file' | 'balances', RequestHandler> {
  const sendHtml = pageFile(own('console.html', 'text/html'));
  return {
    page(_request, response) {
      response.setHeader('content-security-policy', CONTENT_SECURITY_POLICY);
      response.setHeader('referrer-policy', 'no-referrer');
      return sendHtml(response);
    },
    file: pageFiles(FILES),
    async balances(request, response) {
      const id = idOf(request);
      sendJson(response, found(id, await pages.query(response, (pool) => readBalancePoints(pool, id))));
    },
  };
}
