// A relay of TCP before the service: passes every byte on as it is, and reports each request with
// its answer. For clients that wait for an answer before they ask again on a connection, which the
// tools do.
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { onCleanUp } from '../support/harness.ts';

export interface Exchange {
  method: string;
  /** As it was sent. */
  target: string;
  status: number;
  headers: Headers;
  body: string;
}

/** Of one exchange. Above both limits of the service. */
const EXCHANGE_BYTES_MAX = 16_777_216;

/** @returns its URL. */
export async function startTap(url: string, onExchange: (exchange: Exchange) => void): Promise<string> {
  const { hostname, port } = new URL(url);
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    const service = connect({ host: hostname, port: Number(port), allowHalfOpen: true, noDelay: true });
    let asked = Buffer.alloc(0);
    let answered = Buffer.alloc(0);
    client.on('data', (bytes: Buffer) => {
      asked = Buffer.concat([asked, bytes]);
    });
    service.on('data', (bytes: Buffer) => {
      answered = Buffer.concat([answered, bytes]);
      const whole = wholeAnswer(answered, asked);
      if (whole) {
        onExchange(whole);
        asked = Buffer.alloc(0);
        answered = Buffer.alloc(0);
      } else if (answered.length > EXCHANGE_BYTES_MAX) service.destroy();
    });
    client.pipe(service).pipe(client);
    for (const socket of [client, service]) {
      socket.on('error', () => {}).on('close', () => [client, service].map((one) => one.destroySoon()));
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onCleanUp(async () => server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Undefined while a part of it is missing. */
function wholeAnswer(bytes: Buffer, asked: Buffer): Exchange | undefined {
  const headEnd = bytes.indexOf('\r\n\r\n');
  if (headEnd < 0) return undefined;
  const [statusLine = '', ...lines] = bytes.subarray(0, headEnd).toString('latin1').split('\r\n');
  const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(statusLine)?.[1]);
  if (status === 100) return wholeAnswer(bytes.subarray(headEnd + 4), asked);
  const headers = new Headers(lines.map((line) => line.split(/: ?(.*)/s, 2) as [string, string]));
  const [, method = '', target = ''] = /^(\S*) (.*?)(?: HTTP\/1\.[01])?\r?\n/.exec(asked.toString('latin1')) ?? [];
  const sent = bytes.subarray(headEnd + 4);
  const body = method === 'HEAD' ? '' : bodyOf(headers, sent.toString());
  return body === undefined ? undefined : { method, target, status, headers, body };
}

function bodyOf(headers: Headers, sent: string): string | undefined {
  if (headers.get('transfer-encoding') === 'chunked') {
    if (!/(^|\r\n)0\r\n\r\n$/.test(sent)) return undefined;
    return sent.replace(/(^|\r\n)[0-9a-f]+\r\n/g, '').trimEnd();
  }
  return Buffer.byteLength(sent) >= Number(headers.get('content-length') ?? 0) ? sent : undefined;
}
