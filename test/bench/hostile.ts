// Many clients of one bad kind, in a process of their own. Arguments: kind, URL, connections, account id.
// Prints HostileResult; the idle ones stay until the process is ended.
import { connect, type Socket } from 'node:net';

export const KINDS = ['idle', 'slow', 'unread', 'huge', 'pipelined', 'aborted'] as const;
export type Kind = (typeof KINDS)[number];

export interface HostileResult {
  /** Connections that were established. */
  opened: number;
  /** Closed by the server, or by the client where that is what it does. */
  closed: number;
  /** The longest that one stayed open. */
  openMsMax: number;
  /** Answers by status. */
  answers: Record<string, number>;
}

const PIPELINED = 100;
const ABORTED_BODY_BYTES = 8000;
const DRIBBLE_EVERY_MS = 200;
/** After the server's limit, which is 64 s from the last byte that the kernel took, some seconds after the first. */
const UNREAD_KNOCK_MS = 68_000;
const KNOCK_AGAIN_MS = 500;
/** Above every limit of the server. */
const TIMEOUT_MS = 75_000;

async function main(kind: Kind, { hostname, port }: URL, connections: number, accountId: string): Promise<void> {
  const result: HostileResult = { opened: 0, closed: 0, openMsMax: 0, answers: {} };
  const over = (socket: Socket, received: () => string) => {
    const openedAtMs = performance.now();
    return new Promise<void>((resolve) => {
      socket.on('error', () => {});
      socket.once('close', () => {
        result.closed += 1;
        result.openMsMax = Math.max(result.openMsMax, performance.now() - openedAtMs);
        for (const [, status = ''] of received().matchAll(/HTTP\/1\.1 (\d{3})/g)) {
          result.answers[status] = (result.answers[status] ?? 0) + 1;
        }
        resolve();
      });
    });
  };
  const all: Promise<void>[] = [];
  for (let index = 0; index < connections; index += 1) {
    const socket = connect({ host: hostname, port: Number(port) });
    let received = '';
    if (kind !== 'unread') socket.on('data', (bytes: Buffer) => (received += bytes.toString('latin1')));
    all.push(over(socket, () => received));
    await new Promise<void>((resolve) => {
      socket.once('connect', () => {
        result.opened += 1;
        resolve();
      });
      socket.once('error', () => resolve());
    });
    behave[kind](socket, accountId);
  }
  const print = () => process.stdout.write(`RESULT ${JSON.stringify(result)}\n`);
  if (kind === 'idle') {
    print();
    await new Promise(() => setInterval(() => {}, 60_000)); // until it is ended
  }
  const timeout = setTimeout(
    () => process.stdout.write(`RESULT ${JSON.stringify(result)}\n`, () => process.exit()),
    TIMEOUT_MS,
  );
  await Promise.all(all);
  clearTimeout(timeout);
  print();
}

const head = (more: string) =>
  `POST /v1/balance-updates HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n${more}`;

const behave: Record<Kind, (socket: Socket, accountId: string) => void> = {
  idle() {},
  slow(socket) {
    socket.write('GET /livez HTTP/1.1\r\nX: ');
    const dribble = setInterval(() => socket.write('x'), DRIBBLE_EVERY_MS);
    socket.once('close', () => clearInterval(dribble));
  },
  unread(socket) {
    socket.pause();
    // 1.5 MB each: more than the kernel's buffers take.
    socket.write('GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(PIPELINED));
    // A paused socket does not see its end; what it has to send fails when the server is gone. Not earlier: it would be a sign of life.
    const knocking = setTimeout(() => {
      socket.write('\r\n');
      setTimeout(() => socket.write('\r\n'), KNOCK_AGAIN_MS);
    }, UNREAD_KNOCK_MS);
    socket.once('close', () => clearTimeout(knocking));
  },
  huge(socket) {
    socket.write(head(`X: ${'x'.repeat(1_000_000)}\r\n\r\n`));
  },
  pipelined(socket, accountId) {
    const body = JSON.stringify({ accountId, amount: 1 });
    const one = (more = '') => `${head(`${more}Content-Length: ${body.length}\r\n\r\n`)}${body}`;
    socket.write(one().repeat(PIPELINED - 1) + one('Connection: close\r\n'));
  },
  aborted(socket, accountId) {
    const body = `{"accountId":"${accountId}","amount":1}`.padEnd(ABORTED_BODY_BYTES);
    socket.write(`${head(`Content-Length: ${ABORTED_BODY_BYTES + 1}\r\n\r\n`)}${body}`, () => socket.resetAndDestroy());
  },
};

if (import.meta.main) {
  const [kind, url, connections, accountId] = process.argv.slice(2) as [Kind, string, string, string];
  await main(kind, new URL(url), Number(connections), accountId);
}
