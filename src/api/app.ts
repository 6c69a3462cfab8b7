// The HTTP application, apart from listening: the calls of the table, each behind the scope that it declares, and the
// paths around them.
import type { ServerResponse } from 'node:http';
import express, {
  type ErrorRequestHandler,
  type Express,
  type Request,
  type RequestHandler,
  type Response,
} from 'express';
import type { Tracing } from '../shared/tracing.ts';
import type { Access } from './access/access.ts';
import { type AccessLog, noteThrown } from './access/access-log.ts';
import type { Call, CallDeps } from './calls/call.ts';
import { createCrowd } from './calls/crowd.ts';
import { calls } from './calls/table.ts';
import { consoleRoutes } from './console/console-routes.ts';
import type { LiveStream } from './console/live-stream.ts';
import { type HealthOptions, livez, readyz } from './health-routes.ts';
import { type Listener, ofExpress } from './http/express-messages.ts';
import { type BodyReader, createBodyReader } from './http/json-body.ts';
import { createPieces } from './http/pieces.ts';
import { RequestProblem, sendProblem } from './http/problems.ts';
import { traceRequest } from './http/request-trace.ts';
import { type MetricsOptions, metricsRoute } from './metrics-route.ts';
import { type ReferenceOptions, referenceRoutes } from './reference/reference-routes.ts';

/** What every process serves. */
export type OperationsOptions = HealthOptions & MetricsOptions & { accessLog: AccessLog; tracing: Tracing | undefined };
export type AppOptions = Omit<CallDeps, 'pieces' | keyof BodyReader> &
  OperationsOptions &
  ReferenceOptions & { access: Access; live: LiveStream };

type Methods = Partial<Record<'get' | 'post' | 'patch', RequestHandler>>;

export function createApp(options: AppOptions): Listener {
  const app = newApp();
  const { authenticate, allow } = options.access;
  app.use(authenticate); // before all paths: a client without a key learns nothing about them
  const { clientOf } = options.access;
  const pieces = createPieces(); // one for all calls: it shares out the event loop, and the reader limits what bodies hold together
  const bodyReader = createBodyReader(pieces, (request) => clientOf((request as Request).res as Response));
  const deps: CallDeps = { ...options, ...bodyReader, pieces };
  const crowd = createCrowd(clientOf);
  const handlerOf = ({ scope, path, handler }: Call) => {
    if (scope === 'admin') return allow(scope, options.accessLog.ofAdmin(handler(deps)));
    const isSingle = scope === 'write' && !path.endsWith('/bulk');
    return allow(scope, isSingle ? crowd.limited(handler(deps)) : handler(deps));
  };
  for (const [path, ofPath] of Map.groupBy(calls, (call) => call.path)) {
    route(app, path, Object.fromEntries(ofPath.map((call) => [call.method, handlerOf(call)])));
  }
  const reference = referenceRoutes(options);
  route(app, '/openapi.json', { get: reference.openApi });
  route(app, '/asyncapi.json', { get: reference.asyncApi });
  route(app, '/docs', { get: reference.page });
  route(app, '/docs/:file', { get: reference.file });
  const page = consoleRoutes(options);
  route(app, '/', { get: toConsole });
  route(app, '/console', { get: page.page });
  route(app, '/console/stream', { get: allow('read', options.live.handler) });
  route(app, '/console/accounts/:id/balances', { get: allow('read', page.balances) });
  route(app, '/console/files/:file', { get: page.file });
  return finish(app, options);
}

/**
 * For a person who opens the bare address. Relative, so that it is right below a prefix of a proxy
 * too.
 */
const toConsole: RequestHandler = (_request, response) => {
  response.writeHead(302, { location: 'console', 'content-length': 0 }).end();
};

/** What a process serves that only relays: its health. */
export function createHealthApp(options: OperationsOptions): Listener {
  return finish(newApp(), options);
}

const STARTED_AT_MS = Symbol('startedAtMs');
type Started = ServerResponse & { [STARTED_AT_MS]?: number };

/** Not an HTTP status: nginx logs it for a client that left before it was answered. */
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

const NO_SUCH_PATH = { detail: 'GET /openapi.json lists every path: they are case-sensitive, without a / at the end.' };

function finish(app: Express, options: OperationsOptions): Listener {
  route(app, '/livez', { get: livez() });
  route(app, '/readyz', { get: readyz(options) });
  route(app, '/metrics', { get: metricsRoute(options) });
  app.use((_request, response) => sendProblem(response, 'not_found', NO_SUCH_PATH));
  app.use(answerError);
  // One listener for all answers: docs/decisions/031-garbage-in-chains.md.
  function ended(this: Started): void {
    const request = this.req as Request;
    const status = this.headersSent ? this.statusCode : CLIENT_GAVE_UP;
    const seconds = (performance.now() - (this[STARTED_AT_MS] as number)) / 1000;
    options.onRequestEnd(request.method, request.route?.path ?? 'none', status, seconds);
    options.accessLog.ended(request, this as Response);
  }
  return ofExpress(app, (request, response: Started) => {
    response[STARTED_AT_MS] = performance.now();
    if (options.tracing) traceRequest(options.tracing, request as Request, response as Response);
    response.on('close', ended);
    // Express passes on a request target without a path (`http://[`), or answers it with an HTML page.
    app(request as Request, response as Response, () => sendProblem(response, 'not_found', NO_SUCH_PATH));
  });
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

/**
 * The one place where what a handler threw becomes an answer. The access log reports it when the
 * answer has ended.
 */
const answerError: ErrorRequestHandler = (error, _request, response, _next) => {
  noteThrown(response, error);
  if (error instanceof RequestProblem) {
    if (!response.headersSent) {
      for (const [name, value] of Object.entries(error.headers)) response.setHeader(name, value);
    }
    sendProblem(response, error.code, error.details);
  } else if (error instanceof URIError) {
    // Express decodes the path before it looks at the method: not_found is right whatever else is wrong.
    sendProblem(response, 'not_found', { detail: 'The path is not correctly percent-encoded.' });
  } else sendProblem(response, 'internal');
};
