// One client's connections: kept alive, every wait bounded, and never more certain than what it knows.
import { Agent, type IncomingHttpHeaders, request } from 'node:http';

/** As `send` of a client library would fail, but sorted by what it means for the request. */
export type Reply =
  | { kind: 'answer'; status: number; headers: IncomingHttpHeaders; body: unknown }
  /** Nobody listens there: it was not sent. */
  | { kind: 'not sent' }
  /** Sent, perhaps, and no whole answer came. */
  | { kind: 'no answer'; why: string };

export interface HttpClient {
  send(
    port: number,
    method: 'GET' | 'POST' | 'PATCH',
    path: string,
    options?: { body?: unknown; headers?: Record<string, string>; timeoutMs?: number },
  ): Promise<Reply>;
  close(): void;
}

const TIMEOUT_MS = 15_000;

export function createHttpClient(): HttpClient {
  const agent = new Agent({ keepAlive: true, maxSockets: 8 });
  return {
    send: (port, method, path, { body, headers = {}, timeoutMs = TIMEOUT_MS } = {}) =>
      new Promise((resolve) => {
        const text = body === undefined ? undefined : JSON.stringify(body);
        const own =
          text === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
        const sent = request({ host: '127.0.0.1', port, method, path, agent, headers: { ...own, ...headers } });
        const settle = (reply: Reply) => {
          clearTimeout(timer);
          resolve(reply);
        };
        const timer = setTimeout(() => {
          settle({ kind: 'no answer', why: `no answer within ${timeoutMs} ms` });
          sent.destroy();
        }, timeoutMs);
        sent.on('error', (error: NodeJS.ErrnoException) =>
          settle(error.code === 'ECONNREFUSED' ? { kind: 'not sent' } : { kind: 'no answer', why: error.message }),
        );
        sent.on('response', (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('error', (error) => settle({ kind: 'no answer', why: error.message }));
          response.on('end', () => {
            const { statusCode: status = 0, headers } = response;
            try {
              settle({ kind: 'answer', status, headers, body: JSON.parse(Buffer.concat(chunks).toString()) });
            } catch {
              settle({ kind: 'no answer', why: 'the answer is not JSON' });
            }
          });
        });
        sent.end(text);
      }),
    close: () => agent.destroy(),
  };
}
