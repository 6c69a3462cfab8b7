// Log files of the servers started here: opened for appending, bounded in size, read at their end.
import { closeSync, existsSync, fstatSync, openSync, readSync, renameSync, statSync } from 'node:fs';

// A file past this size is set aside (one generation) before the next start appends to a new one.
const LOG_BYTES_MAX = 20 * 1024 * 1024;
const TAIL_BYTES_MAX = 64 * 1024;

export interface LogFile {
  fd: number;
  /** The tail of what was written since it was opened; also works after it was closed. */
  written: () => string;
  close: () => void;
}

export function openLog(path: string): LogFile {
  if (existsSync(path) && statSync(path).size > LOG_BYTES_MAX) renameSync(path, `${path}.1`);
  const fd = openSync(path, 'a', 0o644);
  const start = fstatSync(fd).size;
  let open = true;
  return {
    fd,
    written: () => readEnd(path, start),
    close: () => {
      if (open) closeSync(fd);
      open = false;
    },
  };
}

function readEnd(path: string, start: number): string {
  const fd = openSync(path, 'r');
  try {
    const { size } = fstatSync(fd);
    const from = Math.max(start, size - TAIL_BYTES_MAX);
    const buffer = Buffer.alloc(Math.max(0, size - from));
    const length = readSync(fd, buffer, 0, buffer.length, from);
    return buffer.toString('utf8', 0, length);
  } finally {
    closeSync(fd);
  }
}
