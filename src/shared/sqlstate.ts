// What errors of PostgreSQL mean. Every SQLSTATE that the service knows is here; by the code alone,
// because messages and the severity are in the server's language.
// https://www.postgresql.org/docs/current/errcodes-appendix.html
import { DatabaseError } from './database.ts';

/** @param states SQLSTATEs, or beginnings of them. @returns whether an error is PostgreSQL's answer with one of these. */
const saying =
  (...states: readonly string[]) =>
  (error: unknown): boolean =>
    error instanceof DatabaseError && states.some((state) => error.code?.startsWith(state));

/** A value that its column or function does not take. */
export const isDataException = saying('22');
export const isReadOnly = saying('25006');
export const isDenied = saying('42501');
export const isTableMissing = saying('42P01');
export const isLockNotAvailable = saying('55P03');
export const isDeadlock = saying('40P01');
/** By pg_cancel_backend, or by a timeout. */
export const isCancelled = saying('57014');
/** Another session changed a role or a definition just now: "tuple concurrently updated" has no code of its own. */
export const isCatalogRace = saying('42704', 'XX000');
/** The disk is full, or a file cannot be written. */
export const isWithoutRoom = saying('53100', '58030');
/** temp_file_limit. */
export const isTemporaryFileTooLarge = saying('53400');
/** The server has no room on its disk, no memory, or cannot read or write a file. */
export const isLacking = saying('53100', '53200', '58');
/** The connection ended with it. */
export const isLoss = saying('08', '57P');
/**
 * For a statement that is safe to retry: the server cannot be used now. Anything else is a defect.
 *
 */
export const isUnavailable = saying('08', '25', '53', '57');
/** Notices of the server besides its answer. */
export interface Notice {
  code?: string | undefined;
}

/** privilege_not_granted, privilege_not_revoked. */
export const isGrantWithoutEffect = ({ code }: Notice) => code === '01007' || code === '01006';
/** Serialization failures and deadlocks. */
export const isTransient = saying('40');

/**
 * The cause is in the statement: the data, a constraint, or a conflict with other transactions. Not
 * 40003, which is unknown.
 */
const isRolledBack = saying('22', '23', '40000', '40001', '40002', '40P01');
/**
 * The cause is not in the statement: the server, its schema or a limit of it. Not 25P03, 25P04 and
 * the rest of class 57, which end the session; 53300 comes from servers and poolers that refuse a
 * session.
 */
const isRefused = saying(
  ...['0A', '21', '25001', '25006', '25P02', '26', '3D', '3F', '42', '53000', '53100', '53200', '53400'],
  ...['54', '55', '57014', 'P0'],
);
/**
 * Temporary refusals: a timeout, a lack of resources, a lock, a read-only server, a statement that
 * a pooler forgot.
 */
const isPassing = saying('25006', '26', '53', '55P03', '57014');

/**
 * Only an answer of PostgreSQL itself about this statement, in a session that continues, is
 * certain. Anything else, including codes of poolers and codes not listed here, is unknown.
 * - rolled back: the server undid the statement because of something in it
 * - refused: the server undid it for a reason that has nothing to do with it
 * - unknown: the statement may have been committed
 */
export function effectOf(error: unknown): 'rolled back' | 'refused' | 'unknown' {
  if (isRolledBack(error)) return 'rolled back';
  return isRefused(error) ? 'refused' : 'unknown';
}

/** A temporary refusal is `unavailable`; anything else is a defect of the installation. */
export function refusalOf(error: unknown): 'unavailable' | 'internal' {
  return isPassing(error) ? 'unavailable' : 'internal';
}
