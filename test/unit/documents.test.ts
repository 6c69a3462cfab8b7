// The documents hold together: every link leads somewhere, and prose fits 100 columns.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const pagesIn = (folder: string) =>
  readdirSync(path.join(ROOT, folder))
    .filter((name) => name.endsWith('.md'))
    .map((name) => path.join(folder, name));
const pages = ['.', 'docs'].flatMap(pagesIn);
const decisions = pagesIn('docs/decisions');
/** Commands write them. */
const WRITTEN = ['docs/benchmarks.md', 'docs/licences.md'];
const COLUMNS_MAX = 100;
const TERMS_MAX = 40;

const read = (page: string) => readFileSync(path.join(ROOT, page), 'utf8');
const prose = (text: string) => text.replaceAll(/^( *)```.*?^\1```$/gms, '');

/** As GitHub makes it of a heading. */
const anchorOf = (heading: string) =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}_\- ]/gu, '')
    .trim()
    .replaceAll(' ', '-');
const anchorsOf = (page: string) =>
  [...prose(read(page)).matchAll(/^#+ (.*)$/gm)].map(([, heading]) => anchorOf(heading as string));

function problemOf(page: string, target: string): string | undefined {
  const [file = '', anchor] = target.split('#');
  const linked = file === '' ? page : path.join(path.dirname(page), file);
  if (!existsSync(path.join(ROOT, linked))) return `${page}: there is no ${linked}`;
  if (anchor !== undefined && linked.endsWith('.md') && !anchorsOf(linked).includes(anchor))
    return `${page}: ${linked} has no heading #${anchor}`;
  return undefined;
}

describe.each([...pages, ...decisions])('%s', (page) => {
  it('has no link that leads nowhere', () => {
    const links = [...prose(read(page)).matchAll(/\]\((?!\w+:)([^)\s]+)\)/g)];
    expect(links.map(([, target]) => problemOf(page, target as string)).filter((problem) => problem)).toEqual([]);
  });
});

describe.each(pages.filter((page) => !WRITTEN.includes(page)))('%s', (page) => {
  it(`has prose of ${COLUMNS_MAX} columns at most`, () => {
    const lines = prose(read(page)).split('\n');
    const isBroken = (line: string) => line.length > COLUMNS_MAX && !/^( {4}|\||!\[)/.test(line);
    expect(lines.filter(isBroken)).toEqual([]);
  });
});

it(`the glossary has ${TERMS_MAX} terms at most, each once`, () => {
  const terms = [...read('docs/glossary.md').matchAll(/^\| \*\*(.+?)\*\* \|/gm)].map(([, term]) => term);
  expect(terms.length).toBeGreaterThan(0);
  expect(terms.length).toBeLessThanOrEqual(TERMS_MAX);
  expect(new Set(terms).size).toBe(terms.length);
});
