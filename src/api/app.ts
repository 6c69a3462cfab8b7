// The HTTP application, apart from listening: the calls of the table, each behind the scope that it declares, and the
// paths around them.
import type { RequestListener } from 'node:http';
import express, {
  type ErrorRequestHandler,
  type Express,
  type Request,
  type RequestHandler,
  type Response,
} from 'express';
import type { Logger } from '../shared/logging.ts';
import type { Tracing } from '../shared/tracing.ts';
import { type Access, keyOf } from './access/access.ts';
import type { CallDeps } from './calls/call.ts';
import { calls } from './calls/table.ts';
import { consoleRoutes } from './console/console-routes.ts';
import type { LiveStream } from './console/live-stream.ts';
import { type HealthOptions, livez, readyz } from './health-routes.ts';
import { createBodyReader } from './http/json-body.ts';
import { RequestProblem, sendProblem } from './http/problems.ts';
import { traceRequest } from './http/request-trace.ts';
import { type MetricsOptions, metricsRoute } from './metrics-route.ts';
import { type ReferenceOptions, referenceRoutes } from './reference/reference-routes.ts';

/** What every process serves. */
export type OperationsOptions = HealthOptions & MetricsOptions & { log: Logger; tracing: Tracing | undefined };
export type AppOptions = Omit<CallDeps, 'readJsonBody'> &
  OperationsOptions &
  ReferenceOptions & { access: Access; live: LiveStream };

type Methods = Partial<Record<'get' | 'post' | 'patch', RequestHandler>>;

export function createApp(options: AppOptions): RequestListener {
  const app = newApp();
  const { authenticate, allow } = options.access;
  app.use(authenticate); // before all paths: a caller without a key learns nothing about them
  const deps: CallDeps = { ...options, readJsonBody: createBodyReader() };
  for (const [path, ofPath] of Map.groupBy(calls, (call) => call.path)) {
    route(app, path, Object.fromEntries(ofPath.map((call) => [call.method, allow(call.scope, call.handler(deps))])));
  }
  const reference = referenceRoutes(options);
  route(app, '/openapi.json', { get: reference.openApi });
  route(app, '/asyncapi.json', { get: reference.asyncApi });
  route(app, '/docs', { get: reference.page });
  route(app, '/docs/:file', { get: reference.file });
  const page = consoleRoutes(options);
  route(app, '/console', { get: page.page });
  route(app, '/console/stream', { get: allow('read', options.live.handler) });
  route(app, '/console/accounts/:id/balances', { get: allow('read', page.balances) });
  route(app, '/console/files/:file', { get: page.file });
  return finish(app, options);
}

/** What a process serves that only relays: its health. */
export function createHealthApp(options: OperationsOptions): RequestListener {
  return finish(newApp(), options);
}

/** Not a status of HTTP: nginx's word in its logs for a client that left before there was an answer. */
const CLIENT_GAVE_UP = 499;

function newApp(): Express {
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.enable('case sensitive routing');
  app.enable('strict routing');
  app.set('query parser', 'simple');
  return app;
}

function finish(app: Express, options: OperationsOptions): RequestListener {
  route(app, '/livez', { get: livez });
  route(app, '/readyz', { get: readyz(options) });
  route(app, '/metrics', { get: metricsRoute(options) });
  app.use((_request, response) => sendProblem(response, 'not_found'));
  app.use(answerErrors(options.log));
  // Express leaves a request target without a path (`http://[`) to its caller, or answers it with a page of HTML.
  return (request, response) => {
    const startedAtMs = performance.now();
    if (options.tracing) traceRequest(options.tracing, request as Request, response as Response);
    response.once('close', () => {
      const route = (request as Request).route?.path ?? 'none';
      const status = response.headersSent ? response.statusCode : CLIENT_GAVE_UP;
      options.onRequestEnd(request.method, route, status, (performance.now() - startedAtMs) / 1000);
    });
    app(request as Request, response as Response, () => sendProblem(response, 'not_found'));
  };
}

function route(app: Express, path: string, methods: Methods): void {
  const names = Object.keys(methods) as (keyof Methods)[];
  const one = app.route(path); // one for all methods: Express looks through them in order, 0.5 µs each
  for (const name of names) one[name](methods[name] as RequestHandler);
  const allowed = names.flatMap((name) => (name === 'get' ? ['GET', 'HEAD'] : [name.toUpperCase()]));
  const allow = allowed.sort().join(', ');
  one.all((_request, response) => {
    response.setHeader('allow', allow);
    sendProblem(response, 'method_not_allowed', { detail: `Use ${allow}.` });
  });
}

/** The one place where what a handler threw becomes an answer. */
function answerErrors(log: Logger): ErrorRequestHandler {
  return (error, request, response, _next) => {
    if (error instanceof RequestProblem) {
      if (error.code === 'payload_too_large') response.setHeader('connection', 'close');
      sendProblem(response, error.code, error.details);
    } else if (error instanceof URIError) {
      // Express decodes the path before it looks at the method: not_found is right whatever else is wrong.
      sendProblem(response, 'not_found', { detail: 'The path is not correctly percent-encoded.' });
    } else {
      const { id: keyId, actor } = keyOf(response) ?? {};
      log.error({ err: error, method: request.method, keyId, actor }, 'request failed');
      sendProblem(response, 'internal');
    }
  };
}
