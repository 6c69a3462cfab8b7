// Tests that need what not every machine has. Where it is missing they are skipped, and their names
// say what to install: `npm test` ends with the list of those names.
import { describe, it } from 'vitest';

/** @param what is missing, and how to get it. */
export function needing(what: string, isThere: boolean) {
  const named = (title: string) => (isThere ? title : `${title} (needs ${what})`);
  return {
    it: (title: string, test: () => Promise<void>, timeoutMs?: number) =>
      it.skipIf(!isThere)(named(title), test, timeoutMs),
    describe: (title: string, tests: () => void) => describe.skipIf(!isThere)(named(title), tests),
  };
}
