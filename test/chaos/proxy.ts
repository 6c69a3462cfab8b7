// A TCP proxy that can be told to misbehave: it stands between one process and one server, and each of its connections
// can be cut, stalled, silenced or half closed, at a moment chosen by what passes through.
import { connect, createServer, type Server, type Socket } from 'node:net';

/** Bytes from the start of a connection in which its label is looked for. */
const LABEL_BYTES = 2048;

export type Direction = 'toServer' | 'toClient';

/**
 * - pass: as a wire
 * - hold: nothing is read, so nothing moves, and the sender meets back-pressure in the end
 * - drop: read and thrown away; the connection is good for nothing afterwards, so cut it
 */
type Mode = 'pass' | 'hold' | 'drop';

export interface ProxiedConnection {
  /** Whether the client said this in its first bytes: PostgreSQL's application_name, RabbitMQ's connection_name. */
  says(label: string): boolean;
  readonly isOpen: boolean;
  setMode(direction: Direction, mode: Mode): void;
  /** Bytes thrown away in this direction. */
  dropped(direction: Direction): number;
  /** Calls for each chunk before it moves. The first `true` swallows the chunk and ends the watch. */
  watch(direction: Direction, see: (chunk: Buffer) => boolean): void;
  /** Lets some bytes go on, as a torn segment would. */
  send(direction: Direction, bytes: Buffer): void;
  /** Both ends at once, with a reset. */
  cut(): void;
  /** The server sees the end of the connection; the client sees nothing, neither bytes nor an end. */
  silence(): void;
  /** One end is told that the other will send no more, while the other direction stays open. */
  halfClose(direction: Direction): void;
}

export interface TcpProxy {
  readonly port: number;
  /** Those open now, oldest first. */
  connections(label?: string): ProxiedConnection[];
  /** New connections are closed at once while refused. */
  refuse(refused: boolean): void;
  /** Cuts everything and stops listening. */
  close(): Promise<void>;
}

/**
 * @param target where the server listens, on 127.0.0.1.
 * @param onConnection may set up each connection before anything passes.
 */
export async function startProxy(
  target: { port: number },
  onConnection: (connection: ProxiedConnection) => void = () => {},
): Promise<TcpProxy> {
  const open = new Set<ReturnType<typeof relayConnection>>();
  let refused = false;
  const server: Server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    if (refused) {
      client.on('error', () => {});
      return client.destroy();
    }
    const connection = relayConnection(client, target.port, () => open.delete(connection));
    open.add(connection);
    onConnection(connection);
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the proxy has no port');
  return {
    port: address.port,
    connections: (label) => [...open].filter((one) => one.isOpen && (label === undefined || one.says(label))),
    refuse(next) {
      refused = next;
    },
    async close() {
      for (const connection of open) connection.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function relayConnection(client: Socket, port: number, onClose: () => void) {
  const server = connect({ host: '127.0.0.1', port, allowHalfOpen: true, noDelay: true });
  const ways = {
    toServer: {
      from: client,
      to: server,
      mode: 'pass' as Mode,
      dropped: 0,
      waitsForDrain: false,
      see: undefined as See,
    },
    toClient: {
      from: server,
      to: client,
      mode: 'pass' as Mode,
      dropped: 0,
      waitsForDrain: false,
      see: undefined as See,
    },
  };
  let first = Buffer.alloc(0);
  let silent = false;
  const closed = new Set<Socket>();

  const destroy = () => {
    client.destroy();
    server.destroy();
  };
  for (const direction of ['toServer', 'toClient'] as const) {
    const way = ways[direction];
    const { from, to } = way;
    from.on('data', (chunk: Buffer) => {
      if (direction === 'toServer' && first.length < LABEL_BYTES) first = Buffer.concat([first, chunk]);
      if (way.see?.(chunk)) {
        way.see = undefined;
        return;
      }
      if (way.mode === 'drop' || !to.writable) {
        way.dropped += chunk.length;
        return;
      }
      if (!to.write(chunk)) {
        way.waitsForDrain = true;
        from.pause();
      }
    });
    to.on('drain', () => {
      way.waitsForDrain = false;
      if (way.mode !== 'hold') from.resume();
    });
    from.on('end', () => {
      if (!(silent && to === client) && to.writable) to.end();
    });
    from.on('error', () => {}); // followed by close
    from.on('close', () => {
      closed.add(from);
      if (closed.size === 2) return onClose();
      if (silent && from === server) return; // that is what the client must not see
      if (!to.destroyed) from.errored ? to.resetAndDestroy() : to.end();
    });
  }

  return {
    destroy,
    says: (label: string) => first.includes(label),
    get isOpen() {
      return !silent && !client.destroyed && !server.destroyed;
    },
    setMode(direction: Direction, mode: Mode) {
      const way = ways[direction];
      way.mode = mode;
      if (mode === 'hold') way.from.pause();
      else if (!way.waitsForDrain || mode === 'drop') way.from.resume();
    },
    dropped: (direction: Direction) => ways[direction].dropped,
    watch(direction: Direction, see: (chunk: Buffer) => boolean) {
      ways[direction].see = see;
    },
    send(direction: Direction, bytes: Buffer) {
      ways[direction].to.write(bytes);
    },
    cut() {
      client.resetAndDestroy();
      server.resetAndDestroy();
    },
    silence() {
      silent = true;
      client.pause();
      server.destroy();
    },
    halfClose(direction: Direction) {
      ways[direction].to.end();
    },
  };
}

type See = ((chunk: Buffer) => boolean) | undefined;
