// Errors of migrate, each with a sentence that says what to do.

/** Thrown when the database and the scripts do not fit together. Nothing was changed. */
export class MigrationError extends Error {
  override name = 'MigrationError';
}

/** The database was made before the first release; `npm start` offers to set it aside. */
export class UnreleasedDatabase extends MigrationError {
  override name = 'UnreleasedDatabase';
}

/** A script that failed: names the file, and the line where PostgreSQL gives one. */
export function scriptFailed(name: string, sql: string, cause: unknown): MigrationError {
  const { message, position } = cause as { message?: string; position?: string };
  const line = position === undefined ? '' : ` (line ${sql.slice(0, Number(position)).split('\n').length})`;
  return new MigrationError(`migrations/${name} failed, nothing was changed: ${message ?? cause}${line}`, { cause });
}

/** What PostgreSQL said, where a script failed. */
export const causeOf = (error: unknown): unknown => (error instanceof MigrationError ? error.cause : error);
