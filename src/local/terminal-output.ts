// Lines for a terminal or a pipe, written without waiting for their reader. An unread pipe, or a
// terminal stopped with Ctrl-S, would otherwise block the whole process, including its exit.
import { write } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

/** Beyond these the reader is not reading, and further lines are dropped. */
const WAITING_CHARACTERS_MAX = 100_000;
const FULL_PAUSE_MS = 20;

export interface TerminalOutput {
  say: (line: string) => void;
  /** Whether all of it is written, which this waits for; false when it is not in time. */
  isWritten: (timeoutMs: number) => Promise<boolean>;
}

export function terminalOutput(fd: number): TerminalOutput {
  let waiting = '';
  let writing: Promise<void> | undefined;
  const writeAll = async () => {
    while (waiting !== '') {
      const bytes = Buffer.from(waiting);
      waiting = '';
      for (let from = 0; from < bytes.length; ) {
        const written = await writeSome(fd, bytes.subarray(from));
        if (written === undefined) return; // the reader is gone
        from += written;
      }
    }
  };
  return {
    say: (line) => {
      if (waiting.length > WAITING_CHARACTERS_MAX) return;
      waiting += `${line}\n`;
      writing ??= writeAll().finally(() => (writing = undefined));
    },
    isWritten: async (timeoutMs) => {
      if (!writing) return true;
      return Promise.race([writing.then(() => true), delay(timeoutMs, false)]);
    },
  };
}

/** The number of bytes that were taken; undefined when the terminal or the other end of the pipe is gone. */
async function writeSome(fd: number, bytes: Buffer): Promise<number | undefined> {
  const { error, written } = await new Promise<{ error: NodeJS.ErrnoException | null; written: number }>((resolve) =>
    write(fd, bytes, (failure, count) => resolve({ error: failure, written: count })),
  );
  if (!error) return written;
  if (error.code !== 'EAGAIN') return undefined;
  await delay(FULL_PAUSE_MS); // another process made the pipe return at once when it is full
  return 0;
}
