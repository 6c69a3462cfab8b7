// docs/restore.md as far as that can be said without servers: `npm run test:restore` follows it.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { readSections } from '../restore/page.ts';

const FOLDER = fileURLToPath(new URL('../restore/', import.meta.url));
const PAGE = readFileSync(new URL('../../docs/restore.md', import.meta.url), 'utf8');
const sections = readSections();

it('has runbooks that the tests follow, all of them', () => {
  const [overview = ''] = PAGE.split(/^## /m);
  const listed = [...overview.matchAll(/^\|.*\| \[(.+?)\]/gm)].map(([, title]) => title as string);
  expect(sections.map(({ title }) => title)).toEqual(['Before you begin', ...listed, 'Heal a subscriber']);
  const tests = readdirSync(FOLDER).filter((name) => name.endsWith('.test.ts'));
  const texts = tests.map((name) => readFileSync(`${FOLDER}${name}`, 'utf8')).join('');
  expect([...texts.matchAll(/^it\('(.+?)'/gm)].map(([, title]) => title).sort()).toEqual([...listed].sort());
});

it.each(sections)('has commands for bash in "$title"', ({ blocks }) => {
  expect(blocks.length).toBeGreaterThan(0);
  for (const { commands } of blocks) {
    const { stderr } = spawnSync('bash', ['-n'], { input: commands, encoding: 'utf8' });
    expect({ commands, stderr }).toEqual({ commands, stderr: '' });
  }
});

it('has no command that the tests do not see', () => {
  const fences = PAGE.match(/^ *```sh/gm)?.length;
  expect(sections.flatMap(({ blocks }) => blocks)).toHaveLength(fences ?? 0);
  expect(PAGE).not.toMatch(/^ {4,}\$ /m);
});
