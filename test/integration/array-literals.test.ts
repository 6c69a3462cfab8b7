import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { texts, textsIn } from '../../src/shared/array-literals.ts';
import { cleanUp, createDatabase, type Database } from '../support/harness.ts';

let database: Database;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(cleanUp);

it('gives PostgreSQL the texts of a list as they are, whatever is in them', async () => {
  const character = fc.oneof(
    fc.string({ minLength: 1, unit: 'grapheme' }),
    fc.constantFrom('"', '\\', ',', '{', '}', 'NULL', ' ', '\u2028', 'é', '😀'),
  );
  const text = fc.string({ unit: character, minLength: 1 }).filter((one) => !/\p{Cc}/u.test(one) && one.isWellFormed());
  const list = fc.array(fc.option(text), { minLength: 1 }).filter((one) => one.some((each) => each !== null));
  await fc.assert(
    fc.asyncProperty(list, async (values) => {
      const { rows } = await database.pool.query(`SELECT ${textsIn('$1')} AS list`, [texts(values)]);
      expect(rows).toEqual([{ list: values }]);
    }),
  );
});
