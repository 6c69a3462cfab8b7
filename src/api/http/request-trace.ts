// The server span of a request. Where it is sampled, the request's own traceparent becomes the
// span's: what is stored with an update then continues this trace. Otherwise the client's is passed
// on unchanged.
import type { Request, Response } from 'express';
import type { Tracing } from '../../shared/tracing.ts';
import { traceparentOf } from './input.ts';

const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'CONNECT', 'TRACE']);

export function traceRequest(tracing: Tracing, request: Request, response: Response): void {
  const url = request.url;
  if (!url.startsWith('/v1/')) return; // health and metrics are polled continuously
  const method = METHODS.has(request.method) ? request.method : '_OTHER';
  const query = url.indexOf('?');
  const span = tracing.startRequest(method === '_OTHER' ? 'HTTP' : method, traceparentOf(request), {
    'http.request.method': method,
    'url.scheme': 'http',
    'url.path': query === -1 ? url : url.slice(0, query),
  });
  if (!span) return;
  request.headers.traceparent = span.traceparent;
  response.on('close', () => {
    const route: string | undefined = request.route?.path;
    if (route) {
      span.rename(`${method} ${route}`);
      span.set({ 'http.route': route });
    }
    const { statusCode, headersSent } = response;
    if (headersSent) span.set({ 'http.response.status_code': statusCode });
    if (!headersSent) span.fail('client_gone');
    else if (statusCode >= 500) span.fail(String(statusCode));
    span.end();
  });
}
