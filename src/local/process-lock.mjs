// One holder per lock file, however the holder ends: kill -9, reboot and a reused process id included.
// Built-ins only and plain JavaScript, because the bootstrap runs it on the machine's own Node (>= 18).
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Identifies one life of a process: the same id after a reboot or a reuse gives another identity.
 * Undefined when no such process lives (a zombie counts as dead: in a container it may never be
 * reaped).
 */
export function processIdentity(pid) {
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined;
  if (process.platform === 'linux') {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      // The second field is the command in brackets and may itself contain brackets and blanks.
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      // A first thread that ended is a zombie too, while its siblings still hold the sockets.
      const threads = Number(fields[17]);
      if (fields[0] === 'X' || (fields[0] === 'Z' && threads <= 1)) return undefined;
      const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
      return `${boot}:${pid}:${fields[19]}`;
    } catch {
      return undefined;
    }
  }
  const ps = spawnSync('ps', ['-o', 'state=,lstart=', '-p', String(pid)], { encoding: 'utf8' });
  const line = ps.stdout?.trim();
  if (!line || line.startsWith('Z')) return undefined;
  return `${pid}:${line.replace(/^\S+\s+/, '')}`;
}

/** The holder's record, or undefined if no living process holds the lock. */
export function lockHolder(path) {
  const record = readRecord(path);
  return record && processIdentity(record.pid) === record.identity ? record : undefined;
}

/**
 * Takes the lock for this process, or says who holds it: `{ release }` or `{ holder }`.
 * The file appears complete (written aside, then linked), so a reader never sees half a record.
 */
export function takeLock(path, note = {}) {
  mkdirSync(dirname(path), { recursive: true });
  const mine = `${path}.${process.pid}-${randomBytes(4).toString('hex')}`;
  const record = { pid: process.pid, identity: processIdentity(process.pid), ...note };
  try {
    writeFileSync(mine, JSON.stringify(record), { mode: 0o600 });
    // Each round either takes the lock, meets a living holder, or removes one dead holder's file.
    for (let round = 0; round < 50; round += 1) {
      try {
        linkSync(mine, path);
        return { release: () => releaseLock(path, record.identity) };
      } catch (error) {
        if (error.code !== 'EEXIST') throw error;
      }
      const holder = lockHolder(path);
      if (holder) return { holder };
      removeDead(path, `${mine}.dead`);
    }
    throw new Error(`The lock ${path} keeps changing hands`);
  } finally {
    rmSync(mine, { force: true });
  }
}

// Moves the dead holder's file aside. Between the check and the move another process may have taken
// the lock: then the moved file belongs to it and is put back.
function removeDead(path, aside) {
  try {
    renameSync(path, aside);
  } catch (error) {
    if (error.code === 'ENOENT') return;
    throw error;
  }
  try {
    if (lockHolder(aside)) linkSync(aside, path);
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
  } finally {
    rmSync(aside, { force: true });
  }
}

function releaseLock(path, identity) {
  if (readRecord(path)?.identity === identity) rmSync(path, { force: true });
}

function readRecord(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    if (error.code === 'ENOENT' || error instanceof SyntaxError) return undefined;
    throw error;
  }
}
