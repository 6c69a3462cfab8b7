// verify --since without a head finds what verify finds: the two share their SQL, and begin differently.
import { expect } from 'vitest';
import type { Verification } from '../../src/shared/verification.ts';
import { type Database, verifiedSince } from './harness.ts';

/** But of accounts that have no row: they are only known by a head. */
export async function expectSameSinceOpenings(database: Database, { offenders }: Verification): Promise<void> {
  const { rows } = await database.pool.query('SELECT account_id AS id FROM account');
  const known = new Set(rows.map(({ id }) => id));
  const expected = offenders.filter(({ accountId }) => known.has(accountId));
  expect((await verifiedSince(database, [])).offenders).toEqual(expected);
}
