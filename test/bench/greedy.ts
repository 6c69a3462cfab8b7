// One client that asks for more than its share, in a process of its own. Argument: a Greedy as JSON. Prints a GreedyResult when its
// time is over. Raw sockets, because it shares the machine with what it asks.
import { connect, type Socket } from 'node:net';

export const GREEDS = ['singles', 'bulk', 'pages', 'abandoned', 'unfinished', 'streams', 'exports'] as const;
export type Greed = (typeof GREEDS)[number];

export interface Greedy {
  greed: Greed;
  url: string;
  /** Of its API key; undefined where none is asked for. */
  token?: string | undefined;
  accountId: string;
  seconds: number;
  /** That it keeps busy; of `abandoned` how many it opens in a second. */
  connections: number;
}

export interface GreedyResult {
  /** Answers by status. */
  answers: Record<string, number>;
  /** Connections that were opened. */
  opened: number;
}

const BULK_UPDATES = 1000;
const UNFINISHED_BYTES = 2_000_000;
const ABANDONED_AFTER_MS = 50;
const REOPEN_MS = 100;
const TICK_MS = 5;

if (import.meta.main) {
  const result = await run(JSON.parse(process.argv[2] as string));
  process.stdout.write(`RESULT ${JSON.stringify(result)}\n`, () => process.exit());
}

async function run({ greed, url, token, accountId, seconds, connections }: Greedy): Promise<GreedyResult> {
  const { hostname, port } = new URL(url);
  const result: GreedyResult = { answers: {}, opened: 0 };
  const endsAtMs = performance.now() + seconds * 1000;
  const request = requestOf(greed, accountId, token);

  function open(): Socket {
    result.opened += 1;
    const socket = connect({ host: hostname, port: Number(port), noDelay: true });
    socket.on('error', () => {});
    return socket;
  }

  const count = (status: string) => {
    result.answers[status] = (result.answers[status] ?? 0) + 1;
  };

  /** Sends the next as soon as it has the answer. */
  function repeat(): void {
    const socket = open();
    let text = '';
    socket.on('data', (bytes: Buffer) => {
      text += bytes.toString('latin1');
      const headEnd = text.indexOf('\r\n\r\n');
      if (headEnd < 0) return;
      const length = Number(/content-length: (\d+)/i.exec(text.slice(0, headEnd))?.[1] ?? 0);
      if (text.length < headEnd + 4 + length) return;
      count(text.slice(9, 12));
      text = '';
      if (performance.now() < endsAtMs) socket.write(request);
    });
    socket.on('close', () => performance.now() < endsAtMs && setTimeout(repeat, REOPEN_MS));
    socket.write(request);
  }

  /** Takes what comes for as long as it comes, and asks again. */
  function keep(): void {
    const socket = open();
    socket.once('data', (bytes: Buffer) => count(bytes.toString('latin1', 9, 12)));
    socket.on('data', () => {});
    socket.on('end', () => socket.end());
    socket.on('close', () => performance.now() < endsAtMs && setTimeout(keep, REOPEN_MS));
    socket.write(request);
  }

  function abandon(): void {
    const socket = open();
    socket.write(request);
    setTimeout(() => socket.destroy(), ABANDONED_AFTER_MS);
  }

  if (greed === 'abandoned') {
    const startedAtMs = performance.now();
    let due = 0;
    for (let nowMs = startedAtMs; nowMs < endsAtMs; nowMs = performance.now()) {
      for (; due < (connections * (nowMs - startedAtMs)) / 1000; due += 1) abandon();
      await new Promise((resolve) => setTimeout(resolve, TICK_MS));
    }
  } else {
    const each = greed === 'singles' || greed === 'bulk' || greed === 'pages' ? repeat : keep;
    for (let index = 0; index < connections; index += 1) each();
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  }
  return result;
}

function requestOf(greed: Greed, accountId: string, token: string | undefined): Buffer {
  const common = `Host: localhost\r\n${token === undefined ? '' : `Authorization: Bearer ${token}\r\n`}`;
  const get = (path: string) => Buffer.from(`GET ${path} HTTP/1.1\r\n${common}\r\n`);
  const post = (path: string, length: number, body: string) =>
    Buffer.from(
      `POST ${path} HTTP/1.1\r\n${common}Content-Type: application/json\r\nContent-Length: ${length}\r\n\r\n${body}`,
    );
  const update = JSON.stringify({ accountId, amount: 1 });
  const bulk = `{"updates":[${Array(BULK_UPDATES).fill(update).join(',')}]}`;
  switch (greed) {
    case 'singles':
      return post('/v1/balance-updates', update.length, update);
    case 'bulk':
      return post('/v1/balance-updates/bulk', bulk.length, bulk);
    case 'unfinished':
      return post('/v1/balance-updates/bulk', UNFINISHED_BYTES + 1, ' '.repeat(UNFINISHED_BYTES));
    case 'streams':
      return get('/console/stream');
    case 'exports':
      return get(`/v1/accounts/${accountId}/entries/export?format=csv`);
    default:
      return get(`/v1/accounts/${accountId}/entries?limit=1000`);
  }
}
