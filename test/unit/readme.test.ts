// The figures of the README are those of the benchmark that is committed.
import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';

const read = (file: string) => readFile(new URL(`../../${file}`, import.meta.url), 'utf8');

it('shows rows of docs/benchmarks.md as they are there, missed targets too', async () => {
  const rows = [...(await read('README.md')).matchAll(/^\| .* \| (?:met|\*\*missed\*\*) \|$/gm)].map(([row]) => row);
  expect(rows.length).toBeGreaterThanOrEqual(5);
  expect(rows.some((row) => row.includes('missed'))).toBe(true);
  const measured = (await read('docs/benchmarks.md')).split('\n');
  expect(rows.filter((row) => !measured.includes(row))).toEqual([]);
});
