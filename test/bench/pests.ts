// A few clients that make as much work as they can, without a key or with one, and come again as soon as they are answered or
// closed. A process of its own, until it is ended. Arguments: kind, URL, connections. Prints `RESULT {}` once it has begun.
import { connect, type Socket } from 'node:net';

/** By what each does. */
export const PESTS = {
  names: 'send bulk requests of 2 MB of unknown names',
  bodies: 'send a body without end to a path that does not exist',
  questions: 'ask for the metrics',
  packets: 'send 1,000 requests at once',
} as const;
export type Pest = keyof typeof PESTS;

const NAMES_BYTES = 2_000_000;
const PIECE = Buffer.alloc(65_536, ' ');
const PACKED = 1000;
/** One that cannot connect must not become a flood of attempts. */
const AGAIN_MS = 5;

const names = `{"updates":[{"accountId":"hot","amount":1,${Array.from({ length: 150_000 }, (_, index) => `"n${index}":1`)}}]}`;
const bulk = Buffer.from(
  `POST /v1/balance-updates/bulk HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${NAMES_BYTES}\r\n\r\n${names.slice(0, NAMES_BYTES).padEnd(NAMES_BYTES)}`,
);
const question = 'GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n';

const behave: Record<Pest, (socket: Socket) => void> = {
  names(socket) {
    socket.write(bulk);
    socket.once('data', () => socket.destroy());
  },
  bodies(socket) {
    socket.write('POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000000\r\n\r\n');
    const more = () => {
      while (socket.writable && socket.write(PIECE));
    };
    socket.on('drain', more);
    more();
    socket.resume();
  },
  questions(socket) {
    socket.write(question);
    socket.on('data', (bytes) => {
      if (bytes.includes('HTTP/1.1 ')) socket.write(question); // as soon as an answer begins
    });
  },
  packets(socket) {
    socket.write('GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(PACKED));
    socket.resume();
  },
};

function bother(pest: Pest, hostname: string, port: number): void {
  const socket = connect({ host: hostname, port, noDelay: true }, () => behave[pest](socket));
  socket.on('error', () => {});
  socket.once('close', () => setTimeout(bother, AGAIN_MS, pest, hostname, port));
}

if (import.meta.main) {
  const [pest, url, connections] = process.argv.slice(2) as [Pest, string, string];
  const { hostname, port } = new URL(url);
  for (let index = 0; index < Number(connections); index += 1) bother(pest, hostname, Number(port));
  process.stdout.write('RESULT {}\n');
}
