// A disk that a test can fill: a file system in memory, which only root may mount.
import { spawnSync } from 'node:child_process';
import { chmodSync, closeSync, openSync, rmSync, writeSync } from 'node:fs';
import path from 'node:path';
import { temporaryFolder } from './local-backend.ts';
import type { Reaper } from './reaper.ts';

const CHUNK = Buffer.alloc(65_536);

export interface SmallDisk {
  folder: string;
  /** To the last byte. */
  fill(): void;
  /** Deletes what filled it. */
  empty(): void;
}

/** Unmounted by the reaper. @returns why there is none, where this user may not mount one. */
export function mountSmallDisk(reaper: Reaper, megabytes: number): SmallDisk | string {
  const folder = temporaryFolder(reaper);
  const { status, stderr, error } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', folder]);
  if (status !== 0) return `no disk to fill: ${error?.message ?? stderr.toString().trim()}`;
  reaper.add({ mount: folder });
  chmodSync(folder, 0o755);
  const filler = path.join(folder, 'filler');
  return {
    folder,
    fill() {
      const file = openSync(filler, 'a');
      try {
        for (let size = CHUNK.length; size > 0; ) size = writeAll(file, size) ? size : Math.floor(size / 2);
      } finally {
        closeSync(file);
      }
    },
    empty: () => rmSync(filler, { force: true }),
  };
}

/** @returns false when the disk has no room for so many bytes. */
function writeAll(file: number, bytes: number): boolean {
  try {
    writeSync(file, CHUNK, 0, bytes);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    return false;
  }
}
