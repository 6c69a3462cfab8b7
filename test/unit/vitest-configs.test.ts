// npm test loads one of the configurations of vitest; the others belong to suites that it does not
// run, and name files that move.
import { globSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { expect, it } from 'vitest';

const CONFIGS = ['vitest.config.ts', ...globSync('test/**/vitest.config.ts')];

interface Named {
  globalSetup?: string[];
  setupFiles?: string[];
  include?: string[];
  projects?: { test: Named }[];
}

it.each(CONFIGS)('%s names files that exist', async (file) => {
  const { test }: { test: Named } = (await import(pathToFileURL(file).href)).default;
  const named = [test, ...(test.projects ?? []).map((project) => project.test)].flatMap(
    ({ globalSetup = [], setupFiles = [], include = [] }) => [...globalSetup, ...setupFiles, ...include],
  );
  expect(named.filter((pattern) => globSync(pattern).length === 0)).toEqual([]);
  expect(named).not.toEqual([]);
});
