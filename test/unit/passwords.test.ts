// A file of passwords that is damaged is left as it is, and said to be.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { keptPasswords } from '../../src/compose/passwords.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'passwords-'));
});
afterEach(() => rm(folder, { recursive: true }));

it.each([
  ['{"database":', 'it is not JSON'],
  ['{"database":{"owner":""}}', 'database.owner must have at least 1 characters'],
  ['[]', 'must be an object'],
])('%s', async (text, what) => {
  const file = path.join(folder, 'passwords.json');
  await writeFile(file, text);
  await expect(keptPasswords(file)).rejects.toThrow(`${file} is damaged: ${what}. The servers still have`);
  expect(await readFile(file, 'utf8')).toBe(text);
});
