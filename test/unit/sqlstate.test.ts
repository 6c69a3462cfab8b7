import { describe, expect, it } from 'vitest';
import { DatabaseError } from '../../src/shared/database.ts';
import {
  effectOf,
  isCancelled,
  isCatalogRace,
  isDataException,
  isDeadlock,
  isDenied,
  isLacking,
  isLockNotAvailable,
  isLoss,
  isReadOnly,
  isTableMissing,
  isTemporaryFileTooLarge,
  isTransient,
  isUnavailable,
  isWithoutRoom,
  refusalOf,
} from '../../src/shared/sqlstate.ts';

function failure(code: string): DatabaseError {
  const error = new DatabaseError('it failed', 1, 'error');
  error.code = code;
  return error;
}

describe('the effect of a failed statement', () => {
  it.each([
    ['data that does not fit', '22003'],
    ['data of the wrong form', '22P02'],
    ['a constraint', '23514'],
    ['a serialization failure', '40001'],
    ['a deadlock', '40P01'],
    ['a deferred constraint', '40002'],
  ])('is rolled back after %s (%s)', (_, code) => {
    expect(effectOf(failure(code))).toBe('rolled back');
    expect(isTransient(failure(code))).toBe(code.startsWith('40'));
  });

  it.each([
    ['a statement timeout', '57014', 'unavailable'],
    ['a lock timeout', '55P03', 'unavailable'],
    ['a read-only server', '25006', 'unavailable'],
    ['a full disk', '53100', 'unavailable'],
    ['a lack of memory', '53200', 'unavailable'],
    ['a prepared statement that a pooler forgot', '26000', 'unavailable'],
    ['a missing function', '42883', 'internal'],
    ['missing rights', '42501', 'internal'],
    ['a missing schema', '3F000', 'internal'],
    ['an exception of a function', 'P0001', 'internal'],
    ['a limit of the server', '54001', 'internal'],
    ['a plan of an older schema', '0A000', 'internal'],
  ])('is refused after %s (%s)', (_, code, answer) => {
    expect(effectOf(failure(code))).toBe('refused');
    expect(refusalOf(failure(code))).toBe(answer);
  });

  it.each([
    ['what PostgreSQL itself calls unknown', '40003'],
    ['a transaction whose resolution is unknown', '08007'],
    ['a protocol violation, which pgbouncer reports for much', '08P01'],
    ['a lost connection, by a pooler', '08006'],
    ['a system error, by a pooler', '58000'],
    ['an internal error', 'XX000'],
    ['a shutdown', '57P01'],
    ['a crash of another session', '57P02'],
    ['a start', '57P03'],
    ['a session that was idle too long', '57P05'],
    ['a transaction that was idle too long', '25P03'],
    ['a transaction that took too long', '25P04'],
    ['a pooler without a session to give', '53300'],
    ['an operator in class 57', '57000'],
    ['a class of its own', 'ZZ000'],
    ['a warning', '01000'],
    ['success', '00000'],
    ['nothing', ''],
  ])('is unknown after %s (%s)', (_, code) => {
    expect(effectOf(failure(code))).toBe('unknown');
  });

  it('is unknown after a failure that is not the server’s', () => {
    expect(effectOf(new Error('Connection terminated unexpectedly'))).toBe('unknown');
    expect(effectOf(Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }))).toBe('unknown');
    // Looks like one of the server's, and is not.
    expect(effectOf(Object.assign(new Error('a failure of ours'), { code: '23505' }))).toBe('unknown');
  });
});

describe('what a refusal means', () => {
  it.each([
    [isDataException, '22003'],
    [isReadOnly, '25006'],
    [isDenied, '42501'],
    [isTableMissing, '42P01'],
    [isLockNotAvailable, '55P03'],
    [isDeadlock, '40P01'],
    [isCancelled, '57014'],
    [isCatalogRace, 'XX000'],
    [isWithoutRoom, '53100'],
    [isTemporaryFileTooLarge, '53400'],
    [isLacking, '58030'],
    [isLoss, '57P01'],
    [isUnavailable, '53300'],
  ])('%o says so after %s, and after no other code, nor after an error that PostgreSQL did not send', (says, code) => {
    expect(says(failure(code))).toBe(true);
    expect(says(failure('23514'))).toBe(false);
    expect(says(failure(''))).toBe(false);
    expect(says(Object.assign(new Error('a failure of ours'), { code }))).toBe(false);
    expect(says(undefined)).toBe(false);
  });
});
