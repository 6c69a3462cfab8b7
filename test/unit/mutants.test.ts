// Running the mutants takes half an hour; that they can still be made is seen here, so that a
// change of the code does not leave one behind.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { faults } from '../chaos/faults/faults.ts';
import { mutants } from '../chaos/mutants/mutants.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const known = faults.map(({ name }) => name);

it.each(mutants.map((mutant) => [mutant.name, mutant] as const))(
  'the mutant %s finds its text and its faults',
  (_name, mutant) => {
    for (const { file, find, times = 1 } of mutant.edits) {
      expect(readFileSync(path.join(ROOT, file), 'utf8').split(find).length - 1, file).toBe(times);
    }
    expect(known).toEqual(expect.arrayContaining([...mutant.faults]));
  },
);
