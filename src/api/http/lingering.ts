// Ends connections whose clients keep sending. Closing such a connection at once, with bytes
// unread, can destroy the last answer (RFC 9112, 9.6); reading it at full speed costs the event
// loop. So what still arrives is discarded at a slow pace, for a short while.
import type { Socket } from 'node:net';

/**
 * More than the largest accepted body, so that a client that sends everything before it reads still
 * gets its answer.
 */
const BYTES_MAX = 4_194_304;
const TIME_MS_MAX = 2000;
/** All take turns, a read of 64 KiB each time: 13 MB/s together, a few per cent of a core. */
const READ_EVERY_MS = 5;
/** Each may hold 128 KiB of what it has sent. More are closed at once. */
const LINGERING_MAX = 500;

export interface Lingering {
  /**
   * Accepts no more requests from it: from now on its bytes are not parsed, and not read beyond 128
   * KiB.
   */
  deafen(socket: Socket): void;
  /**
   * Has the connection linger after the answer that says `Connection: close`, when that was sent.
   */
  afterAnswer(socket: Socket): void;
  /** Ends the connection from this side, and closes it when the other has had time to see that. */
  end(socket: Socket): void;
}

export function createLingering(): Lingering {
  /** In the order of their turns. */
  const lingering = new Map<Socket, { bytes: number; untilMs: number }>();
  let reading: NodeJS.Timeout | undefined;

  function takeTurn(): void {
    const [first] = lingering;
    if (!first) {
      clearInterval(reading);
      reading = undefined;
      return;
    }
    const [socket, { bytes, untilMs }] = first;
    lingering.delete(socket);
    const read = bytes + ((socket.read() as Buffer | null)?.length ?? 0);
    if (socket.destroyed || read > BYTES_MAX || performance.now() > untilMs) socket.destroy();
    else lingering.set(socket, { bytes: read, untilMs });
  }

  function deafen(socket: Socket): void {
    socket.removeAllListeners('data'); // Node's parser
    // From here on only what is read is taken, into a buffer that is bounded.
    socket.on('readable', () => {});
    socket.push(''); // Node may have paused reading because of an unread body: this resumes it
  }

  function end(socket: Socket): void {
    socket.end();
    deafen(socket);
    socket.once('end', () => socket.destroy());
    if (lingering.size >= LINGERING_MAX) socket.once('finish', () => socket.destroy());
    else {
      lingering.set(socket, { bytes: 0, untilMs: performance.now() + TIME_MS_MAX });
      reading ??= setInterval(takeTurn, READ_EVERY_MS);
    }
  }

  return {
    deafen,
    afterAnswer(socket) {
      socket.destroySoon = () => end(socket); // which Node calls then
    },
    end,
  };
}
