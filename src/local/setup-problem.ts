// A problem that its reader can solve: one sentence saying what is wrong and what to change.
// Commands print its message alone; anything else that is thrown is a defect and keeps its stack trace.
export class SetupProblem extends Error {
  override name = 'SetupProblem';
}

/** Turns a file-system error below `dir` into a sentence; any other error is returned unchanged. */
export function explainFileError(error: unknown, dir: string): unknown {
  const { code, path: file = dir } = error as NodeJS.ErrnoException;
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS' || code === 'ENOENT') {
    return new SetupProblem(
      `Cannot write to ${file} (${code}): change its permissions, or set DATA_DIR to another folder.`,
      {
        cause: error,
      },
    );
  }
  if (code === 'EEXIST' || code === 'ENOTDIR') {
    return new SetupProblem(`${file} cannot be created, a file is in its way: set DATA_DIR to another folder.`, {
      cause: error,
    });
  }
  if (code === 'ENOSPC') {
    return new SetupProblem(`The disk that holds ${dir} is full: make room, or set DATA_DIR to another folder.`, {
      cause: error,
    });
  }
  return error;
}
