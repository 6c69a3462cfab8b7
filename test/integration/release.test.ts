// npm run release, in a repository of its own with a remote: it refuses what cannot be released and
// changes nothing, and makes a release up to the two commands that publish it, which are run here.
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { cp, symlink } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { changelogProblem } from '../release/changelog.ts';
import { makeImage } from '../release/image.ts';
import { type Ended, follow } from '../support/commands.ts';
import { cleanUp, createFolder, INHERITED, onCleanUp } from '../support/harness.ts';
import { needing } from '../support/needing.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
/** Of the clone, or of those who work in it. */
const LEFT_OUT = /(^|\/)(node_modules|\.git|\.data[^/]*|dist|coverage|report)(\/|$)/;
const NOBODY = '/nonexistent';
const ENVIRONMENT = {
  ...INHERITED,
  HOME: NOBODY,
  GIT_CONFIG_GLOBAL: '/dev/null',
  GIT_CONFIG_NOSYSTEM: '1',
  DOCKER_HOST: `unix://${NOBODY}`,
};
const { version } = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8'));
const today = new Date().toISOString().slice(0, 10);
const NOTES = '### Money\n\n- Accounts, and `code`.\n\n# No comment';

afterAll(cleanUp);

let clone: string;
let origin: string;

/** @throws where it fails. */
function git(...command: string[]): string {
  const { status, stdout, stderr } = spawnSync('git', command, { cwd: clone, env: ENVIRONMENT, encoding: 'utf8' });
  if (status !== 0) throw new Error(`git ${command.join(' ')}: ${stderr}`);
  return stdout.trimEnd();
}

function commit(files: Readonly<Record<string, string>>): void {
  for (const [file, text] of Object.entries(files)) writeFileSync(path.join(clone, file), text);
  git('add', '.');
  git('commit', '--quiet', '-m', 'A state of the clone');
}

const read = (file: string) => readFileSync(path.join(clone, file), 'utf8');
const changelog = (title: string) => `# Changelog\n\n## ${title}\n\n${NOTES}\n\n## 0.0.1, 2026-01-02\n\n- Nothing.\n`;
const withTests = (command: string) => ({
  'package.json': read('package.json').replace(/"test": ".*"/, `"test": "${command}"`),
});

function release(...options: string[]): Promise<Ended> {
  const command = [path.join(clone, 'test', 'release', 'main.ts'), ...options];
  return follow(spawn(process.execPath, command, { cwd: clone, env: ENVIRONMENT })).whenEnded;
}

/** Everything that a release could change, the remote included. */
const wholeState = () =>
  [
    git('for-each-ref'),
    git('status', '--porcelain', '--branch'),
    git('ls-remote', origin),
    spawnSync('ls', ['-A', clone], { encoding: 'utf8' }).stdout,
  ].join('\n');

beforeAll(async () => {
  const folder = await createFolder();
  [clone, origin] = [path.join(folder, 'clone'), path.join(folder, 'origin.git')];
  await cp(ROOT, clone, { recursive: true, filter: (file) => !LEFT_OUT.test(path.relative(ROOT, file)) });
  await symlink(path.join(ROOT, 'node_modules'), path.join(clone, 'node_modules'));
  git('init', '--quiet', '--initial-branch=main');
  git('config', 'user.name', 'A releaser');
  git('config', 'user.email', 'releaser@example.com');
  writeFileSync(path.join(clone, '.git', 'info', 'exclude'), 'node_modules\n');
  commit({ 'CHANGELOG.md': changelog(`${version}, ${today}`), ...withTests('node -p 6*7') });
  git('init', '--quiet', '--bare', origin);
  git('remote', 'add', 'upstream', origin);
  git('push', '--quiet', '--set-upstream', 'upstream', 'main');
});

describe('npm run release refuses, and changes nothing,', () => {
  let good: string;
  beforeAll(() => {
    good = git('rev-parse', 'HEAD');
  });

  it.each<[string, () => void, RegExp]>([
    [
      'a file that is not committed',
      () => writeFileSync(path.join(clone, 'new.ts'), ''),
      /^- these files are not as committed:\n {4}\?\? new\.ts$/m,
    ],
    [
      'another branch',
      () => git('switch', '--quiet', '-c', 'topic'),
      /^- the branch is topic, and releases are made on main/m,
    ],
    ['a commit without a branch', () => git('switch', '--quiet', '--detach'), /^- no branch is checked out/m],
    [
      'a main that lacks commits of its upstream',
      () => {
        commit({ 'new.ts': '' });
        git('push', '--quiet', 'upstream', 'main');
        git('reset', '--quiet', '--hard', good);
      },
      /^- the upstream branch has commits that main lacks \(1\)/m,
    ],
    [
      'a changelog without a date',
      () => commit({ 'CHANGELOG.md': changelog(`${version}, not yet released`) }),
      /^- CHANGELOG\.md says "\S+, not yet released": write the day of the release, "## \S+, \d{4}-\d\d-\d\d"$/m,
    ],
    [
      'a changelog of another version',
      () => commit({ 'CHANGELOG.md': changelog(`9.9.9, ${today}`) }),
      /^- the newest section of CHANGELOG\.md is "9\.9\.9, \S+", not that of/m,
    ],
    [
      'another version in the lock file',
      () =>
        commit({
          'package-lock.json': read('package-lock.json').replace(`"version": "${version}"`, '"version": "9.9.9"'),
        }),
      /^- package-lock\.json says version 9\.9\.9 and \S+, package\.json \S+: npm install --package-lock-only$/m,
    ],
    ['a tag that exists', () => git('tag', `v${version}`), /^- the tag v\S+ exists, at \w+: raise the version/m],
    [
      'nobody who could have made the tag',
      () => {
        for (const name of ['user.name', 'user.email']) git('config', '--unset', name);
        git('config', 'user.useConfigOnly', 'true');
      },
      /^- git does not know who makes the tag: set git config user\.name and user\.email$/m,
    ],
  ])('%s', async (_, prepare, sentence) => {
    prepare();
    try {
      const before = wholeState();
      const { code, out, err } = await release();
      expect({ code, out }).toEqual({ code: 1, out: '' });
      expect(err).toMatch(/^Not released, and nothing was changed:\n- .*/);
      expect(err.match(/^- /gm), err).toHaveLength(1);
      expect(err).toMatch(sentence);
      expect(wholeState()).toBe(before);
    } finally {
      git('config', 'user.name', 'A releaser');
      git('config', 'user.email', 'releaser@example.com');
      git('switch', '--quiet', '--force', 'main');
      git('reset', '--quiet', '--hard', good);
      git('clean', '--quiet', '--force');
      git('push', '--quiet', '--force', 'upstream', 'main');
      spawnSync('git', ['tag', '--delete', `v${version}`], { cwd: clone });
    }
  });

  it('a release without tests', async () => {
    const { code, err } = await release('--without-tests');
    expect({ code, err }).toEqual({ code: 2, err: expect.stringMatching(/^--without-tests goes with --dry-run only/) });
  });

  it('a --dry-run that npm took for itself', async () => {
    const child = spawn('npm', ['run', '--silent', 'release', '--dry-run'], { cwd: clone, env: ENVIRONMENT });
    const { code, err } = await follow(child).whenEnded;
    expect({ code, err }).toEqual({
      code: 2,
      err: expect.stringMatching(/^npm took --dry-run for an option of its own/),
    });
  });

  it('failing tests, before anything is built', async () => {
    commit(withTests('exit 3'));
    const before = wholeState();
    const { code, err } = await release();
    expect({ code, err }).toEqual({
      code: 1,
      err: 'Not released, and no tag was made: npm test failed with exit code 3\n',
    });
    expect(wholeState()).toBe(before);
    git('reset', '--quiet', '--hard', good);
  });

  it('a package in which publint finds something', async () => {
    const { '.': root, ...others } = JSON.parse(read('package.json')).exports;
    const { types, ...rest } = root;
    const exports = { '.': { ...rest, types }, ...others }; // which nobody reads there: the first that fits counts
    commit({ 'package.json': JSON.stringify({ ...JSON.parse(read('package.json')), exports }) });
    const { code, err } = await release('--dry-run', '--without-tests');
    expect({ code, err }).toEqual({
      code: 1,
      err: expect.stringMatching(/^Not released, .* publint finds in the package:\n {2}.*types should be the first/),
    });
    git('reset', '--quiet', '--hard', good);
  });

  it('a file that the tests left behind', async () => {
    commit(withTests('touch left-behind.ts'));
    const { code, err } = await release();
    expect({ code, err }).toEqual({
      code: 1,
      err: expect.stringMatching(/after tests and build .*\n {4}\?\? left-behind\.ts/),
    });
    expect(git('tag')).toBe('');
    git('reset', '--quiet', '--hard', good);
    git('clean', '--quiet', '--force');
  });
});

it('npm run release -- --dry-run does everything but the tag', async () => {
  const before = git('for-each-ref');
  const { code, out, err } = await release('--dry-run', '--without-tests');
  expect({ code, err }).toEqual({ code: 0, err: '' });
  expect(out.split('\n')).toEqual([
    expect.stringMatching(`^clone: v${version} will be \\w{9} of main$`),
    'tests: left out',
    expect.stringMatching(`^package: highload-balance-${version}\\.tgz, \\d+ kB, sha256 [0-9a-f]{64}$`),
    expect.stringMatching(/^image: not built, because no Docker engine answers here \(.+\)$/),
    `tag: left out. Without --dry-run v${version} would be made now.`,
    '',
  ]);
  expect(git('for-each-ref')).toBe(before);
  expect(git('status', '--porcelain')).toBe('');
});

it('npm run release tags with the notes, pushes nothing, and prints the commands that publish it', async () => {
  const { code, out, err } = await release();
  expect({ code, err }).toEqual({ code: 0, err: '' });
  expect(out).toMatch(/^42$/m); // what npm test printed
  expect(git('cat-file', '-t', `v${version}`)).toBe('tag');
  expect(git('tag', '--list', '--format=%(contents)')).toBe(`${version}, ${today}\n\n${NOTES}`);
  expect(git('rev-parse', `v${version}^{commit}`)).toBe(git('rev-parse', 'main'));
  expect(git('ls-remote', '--tags', origin)).toBe('');

  const [, commands = ''] = out.split('Nothing was pushed. To publish it:');
  expect(commands.trim().split(/\n\s*/)).toEqual(['git push upstream main', `git push upstream v${version}`]);
  for (const command of commands.trim().split(/\n\s*/)) git(...command.split(' ').slice(1));
  expect(git('ls-remote', '--tags', origin)).toContain(git('rev-parse', `v${version}`));
});

it.each([
  ['2026-02-30', /^CHANGELOG\.md says "1\.2\.3, 2026-02-30": write the day of the release/],
  ['2026-11-25', /^CHANGELOG\.md says "1\.2\.3, 2026-11-25", a day in the future/],
  ['2026-11-24', undefined], // there is a place where it is the 24th
  ['2026-11-20', undefined],
])('on 23 November a changelog of %s is judged by its date', (day, problem) => {
  const said = changelogProblem(`## 1.2.3, ${day}\n\n- New.\n`, '1.2.3', Date.UTC(2026, 10, 23, 12));
  if (problem === undefined) expect(said).toBeUndefined();
  else expect(said).toMatch(problem);
});

it('a section of the changelog that says nothing is no section', () => {
  expect(changelogProblem('## 1.2.3, 2020-01-01\n\n## 1.2.2, 2019-01-01\n\n- Old.\n', '1.2.3')).toMatch(/ is empty$/);
});

needing('a Docker engine', inject('backend') === 'docker').it(
  'the image names its version and commit, and runs without network on a read-only file system',
  async () => {
    const name = 'highload-balance:test-of-release';
    onCleanUp(async () => spawnSync('docker', ['image', 'rm', '--force', name]));
    expect(await makeImage(ROOT, name, version, 'a'.repeat(40))).toBe(`${name}, of aaaaaaaaa`);
  },
  600_000,
);
