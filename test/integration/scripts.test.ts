// Every script of package.json answers --help, and does nothing else.
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { follow } from '../support/commands.ts';
import { cleanUp, INHERITED } from '../support/harness.ts';

afterAll(cleanUp);

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const SCRIPTS = Object.keys(JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')).scripts);
/** Their help is Biome's own. */
const OF_BIOME = ['lint', 'format'];
/** What scripts write; but for dist, which tests of the package build meanwhile. */
const WRITTEN = ['docs/benchmarks.md', 'docs/licences.md', 'docs/console/at-rest.png', 'migrations/schema.sql'];

const whenWritten = () =>
  WRITTEN.map((file) => path.join(ROOT, file)).map((file) => (existsSync(file) ? statSync(file).mtimeMs : undefined));

let before: (number | undefined)[];
beforeAll(() => {
  before = whenWritten();
});
afterAll(() => expect(whenWritten()).toEqual(before));

it.each(SCRIPTS)('npm run %s -- --help', async (name) => {
  const child = spawn('npm', ['run', '--silent', name, '--', '--help'], { cwd: ROOT, env: INHERITED });
  const { code, out, err } = await follow(child).whenEnded;
  expect({ code, err }).toEqual({ code: 0, err: '' });
  expect(out).toMatch(OF_BIOME.includes(name) ? /^Usage: biome check/m : /^usage: (npm|highload-balance) /);
});
