// /openapi.json, /asyncapi.json, and /docs, a page that shows the first. All of it comes from this process: it works
// without internet.
import { readFile } from 'node:fs/promises';
import type { RequestHandler } from 'express';
import type { Topology } from '../../shared/topology.ts';
import { type PageFile, pageFiles, sendPage } from '../http/page-files.ts';
import { asyncApiDocument } from './asyncapi.ts';
import type { Auth } from './responses.ts';

/** Swagger UI sets styles of elements, and shows images that it brings as data. */
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  ...["script-src 'self'", "connect-src 'self'", "style-src 'self' 'unsafe-inline'", "img-src 'self' data:"],
  ...["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"],
].join('; ');

const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>highload-balance API</title>
<meta name="color-scheme" content="light dark">
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
<script src="docs/scheme.js"></script>
<script src="docs/swagger-ui-bundle.js" defer></script>
<script src="docs/start.js" type="module"></script>
</head>
<body>
<noscript>This page needs JavaScript. The document itself: <a href="openapi.json">openapi.json</a>; the events: <a href="asyncapi.json">asyncapi.json</a>.</noscript>
<main id="page"></main>
</body>
</html>
`;
const ofSwaggerUi = (name: string, type: string): PageFile => ({
  type,
  from: () => import.meta.resolve(`swagger-ui-dist/${name}`),
});
const own = (name: string): PageFile => ({ type: 'text/javascript', from: () => new URL(name, import.meta.url) });
const FILES = {
  'swagger-ui.css': ofSwaggerUi('swagger-ui.css', 'text/css'),
  'swagger-ui-bundle.js': ofSwaggerUi('swagger-ui-bundle.js', 'text/javascript'),
  'favicon-32x32.png': ofSwaggerUi('favicon-32x32.png', 'image/png'),
  'scheme.js': own('scheme.js'),
  'start.js': own('start.js'),
  'examples.js': own('examples.js'),
};

export interface ReferenceOptions {
  topology: Topology;
  auth: Auth;
}

export function referenceRoutes({ topology, auth }: ReferenceOptions) {
  const openApi = once(async () => {
    const { openApiDocument } = await import('./openapi.ts');
    return JSON.stringify(openApiDocument(await version(), auth));
  });
  const asyncApi = once(async () => JSON.stringify(asyncApiDocument(await version(), topology)));

  openApi().catch(() => {}); // started early because it takes about 25 ms; a failure is reported to the first reader

  const json =
    (document: () => Promise<string>): RequestHandler =>
    async (_request, response) =>
      sendPage(response, 'application/json', await document());

  const page: RequestHandler = (_request, response) => {
    response.setHeader('content-security-policy', CONTENT_SECURITY_POLICY);
    sendPage(response, 'text/html; charset=utf-8', PAGE);
  };

  return { openApi: json(openApi), asyncApi: json(asyncApi), page, file: pageFiles(FILES) };
}

/** A failure is not kept. */
function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => {
    made ??= make().catch((error: unknown) => {
      made = undefined;
      throw error;
    });
    return made;
  };
}

async function version(): Promise<string> {
  const text = await readFile(new URL('../../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
