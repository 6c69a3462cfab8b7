// Sets the folder of an unreleased version aside, if a person agrees. It is renamed, never deleted.
import { existsSync, renameSync } from 'node:fs';
import path from 'node:path';
import type { UnreleasedDatabase } from '../shared/migration-error.ts';
import type { Confirm } from './confirm.ts';
import { SetupProblem } from './setup-problem.ts';

/** Thrown when the data that `npm start` keeps is from an unreleased version. */
export class OldData extends Error {
  override name = 'OldData';

  constructor(cause: UnreleasedDatabase) {
    super(cause.message, { cause });
  }
}

/**
 * Asks, and renames the folder. Nothing may be running in it.
 * @param confirm undefined if there is no terminal.
 * @returns the new path of the folder. @throws SetupProblem that says how to do it by hand, unless
 * a person agreed.
 */
export async function setAside(dir: string, confirm: Confirm | undefined): Promise<string> {
  const target = freeName(dir);
  const what = `The data in ${dir} was created by an unreleased version of highload-balance and cannot be continued.`;
  const isAgreed = await confirm?.(
    `${what}\nSet it aside as ${path.basename(target)} and start with an empty database?`,
    'no',
  );
  if (!isAgreed) {
    throw new SetupProblem(
      `${what} Nothing was changed. To keep it and start with an empty database: mv ${quoted(dir)} ${quoted(target)} && npm start`,
    );
  }
  try {
    renameSync(dir, target);
  } catch (cause) {
    // A mount point, or a folder that belongs to another user.
    throw new SetupProblem(
      `${dir} could not be renamed (${(cause as Error).message}): set DATA_DIR to another folder.`,
      {
        cause,
      },
    );
  }
  return target;
}

function freeName(dir: string): string {
  for (let number = 1; ; number += 1) {
    const name = `${dir}.unreleased${number === 1 ? '' : `-${number}`}`;
    if (!existsSync(name)) return name;
  }
}

/** For a shell. */
function quoted(file: string): string {
  return /^[\w./-]+$/.test(file) ? file : `'${file.replaceAll("'", "'\\''")}'`;
}
