// Load by arrival: a request is due at its time, whatever became of those before it. A process of its own; raw sockets,
// because it shares the machine with what it measures. Argument: a Flood as JSON. Prints a FloodResult.
import { connect, type Socket } from 'node:net';

export interface Flood {
  url: string;
  accountId: string;
  seconds: number;
  /** Requests a second; 0: as fast as the answers come, one under way on each connection. */
  rate: number;
  /** At most so many under way; what is due beyond them is counted and not sent. */
  connections: number;
  /** Of an API key. */
  token?: string | undefined;
  /** Updates in a bulk request; undefined: single ones. */
  updates?: number | undefined;
}

export interface FloodResult {
  seconds: number;
  sent: number;
  unsent: number;
  accepted: number;
  refused: number;
  /** Refusals without Retry-After. */
  unadvised: number;
  /** Neither 200 nor 503, and connections that broke. */
  other: number;
  acceptedP50Ms: number;
  acceptedP99Ms: number;
  acceptedMaxMs: number;
  refusedP99Ms: number;
  refusedMaxMs: number;
  /** Accepted in each second. */
  acceptedBySecond: number[];
}

const TICK_MS = 2;
/** For the last answers to come. */
const END_TIMEOUT_MS = 10_000;

if (import.meta.main) {
  const result = await flood(JSON.parse(process.argv[2] as string));
  process.stdout.write(`RESULT ${JSON.stringify(result)}\n`, () => process.exit());
}

async function flood({ url, accountId, seconds, rate, connections, token, updates }: Flood): Promise<FloodResult> {
  const { hostname, port } = new URL(url);
  const update = { accountId, amount: 1 };
  const body = JSON.stringify(updates === undefined ? update : { updates: Array(updates).fill(update) });
  const path = updates === undefined ? '/v1/balance-updates' : '/v1/balance-updates/bulk';
  const authorization = token === undefined ? '' : `Authorization: Bearer ${token}\r\n`;
  const request = Buffer.from(
    `POST ${path} HTTP/1.1\r\nHost: localhost\r\n${authorization}Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  );
  const free: Socket[] = [];
  const acceptedMs: number[] = [];
  const refusedMs: number[] = [];
  const acceptedBySecond: number[] = new Array(seconds).fill(0);
  let [open, underWay, sent, unsent, unadvised, other] = [0, 0, 0, 0, 0, 0];
  const startedAtMs = performance.now();
  const endsAtMs = startedAtMs + seconds * 1000;

  function open1(): Socket {
    open += 1;
    const socket = connect({ host: hostname, port: Number(port), noDelay: true });
    let isBusy = true;
    let text = '';
    let sentAtMs = performance.now();
    socket.on('busy', () => {
      isBusy = true;
      sentAtMs = performance.now();
    });
    socket.on('data', (bytes: Buffer) => {
      text = text === '' ? bytes.toString('latin1') : text + bytes.toString('latin1');
      const headEnd = text.indexOf('\r\n\r\n');
      if (headEnd < 0) return;
      const length = Number(/content-length: (\d+)/i.exec(text)?.[1] ?? 0);
      if (text.length < headEnd + 4 + length) return;
      const nowMs = performance.now();
      const status = text.slice(9, 12);
      if (status === '200') {
        acceptedMs.push(nowMs - sentAtMs);
        const second = Math.floor((nowMs - startedAtMs) / 1000);
        if (second < seconds) acceptedBySecond[second] = (acceptedBySecond[second] ?? 0) + 1;
      } else if (status === '503') {
        refusedMs.push(nowMs - sentAtMs);
        if (!/\r\nretry-after: \d/i.test(text)) unadvised += 1;
      } else other += 1;
      text = '';
      isBusy = false;
      underWay -= 1;
      if (rate === 0 && nowMs < endsAtMs) send(socket);
      else free.push(socket);
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      open -= 1;
      if (isBusy) {
        other += 1;
        underWay -= 1;
      } else free.splice(free.indexOf(socket), 1);
    });
    return socket;
  }

  function send(socket: Socket): void {
    sent += 1;
    underWay += 1;
    socket.emit('busy');
    socket.write(request);
  }

  for (let index = 0; rate === 0 && index < connections; index += 1) send(open1());
  let due = 0;
  for (let nowMs = startedAtMs; nowMs < endsAtMs; nowMs = performance.now()) {
    for (const dueNow = (rate * (nowMs - startedAtMs)) / 1000; due < dueNow; due += 1) {
      const socket = free.pop() ?? (open < connections ? open1() : undefined);
      if (socket) send(socket);
      else unsent += 1;
    }
    await new Promise((resolve) => setTimeout(resolve, TICK_MS));
  }
  while (underWay > 0 && performance.now() < endsAtMs + END_TIMEOUT_MS) {
    await new Promise((resolve) => setTimeout(resolve, TICK_MS));
  }
  const of = (values: Float64Array, share: number) => values[Math.ceil(share * values.length) - 1] ?? 0;
  const [accepted, refused] = [Float64Array.from(acceptedMs).sort(), Float64Array.from(refusedMs).sort()];
  return {
    ...{ seconds, sent, unsent, accepted: accepted.length, refused: refused.length, unadvised },
    other: other + underWay,
    acceptedP50Ms: of(accepted, 0.5),
    acceptedP99Ms: of(accepted, 0.99),
    acceptedMaxMs: of(accepted, 1),
    refusedP99Ms: of(refused, 0.99),
    refusedMaxMs: of(refused, 1),
    acceptedBySecond,
  };
}
