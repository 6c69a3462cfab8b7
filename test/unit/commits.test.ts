// Every commit since the rule was introduced has a subject of at most 72 characters and a body.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { commitsUnderTheRule, problemsOf } from '../commits.ts';
import { needing } from '../support/needing.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const here = commitsUnderTheRule(ROOT);

needing('a git clone with its history: git fetch --unshallow', here.length > 0).it(
  'each commit of this clone has a short subject, and a body that says why',
  async () => {
    const bad = here.flatMap(({ hash, message }) =>
      problemsOf(message).map((problem) => `${hash.slice(0, 9)} "${message.split('\n')[0]}": ${problem}`),
    );
    expect(bad, 'the rule is in CONTRIBUTING.md').toEqual([]);
  },
);

describe('a message', () => {
  const body = '\n\nBecause it was wrong.';

  it.each([
    ['a short subject and a body', `Relay: repair it${body}`],
    ['a subject of 72 characters', `${'é'.repeat(72)}${body}`],
    ['trailers after its body', `Relay: repair it${body}\n\nSigned-off-by: A <a@example.com>`],
  ])('with %s is good', (_, message) => expect(problemsOf(message)).toEqual([]));

  it.each([
    ['a subject of 73 characters', `${'é'.repeat(73)}${body}`, /^its subject has 73 characters, at most 72/],
    ['nothing but a subject', 'Relay: repair it', /^it has no body/],
    ['nothing but trailers', 'Relay: repair it\n\nSigned-off-by: A <a@example.com>', /^it has no body/],
    ['a body right after the subject', 'Relay: repair it\nIt was wrong.\nVery.', /^its second line is not empty/],
  ])('with %s is not', (_, message, problem) => expect(problemsOf(message)).toEqual([expect.stringMatching(problem)]));
});

describe('of a clone', () => {
  let folder: string;
  let origin: string;
  const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('GIT_')));
  const author = ['-c', 'user.name=A', '-c', 'user.email=a@example.com', '-c', 'commit.gpgsign=false'];
  const git = (...command: string[]) =>
    execFileSync('git', [...author, ...command], { cwd: origin, env: environment, stdio: 'pipe', timeout: 10_000 });
  const commit = (subject: string) => git('commit', '--quiet', '--allow-empty', '-m', subject);
  const subjects = (place: string) => commitsUnderTheRule(place).map(({ message }) => message);

  beforeAll(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'highload-balance-commits-'));
    origin = path.join(folder, 'origin');
    mkdirSync(path.join(origin, 'test'), { recursive: true });
    git('init', '--quiet', '--initial-branch=main');
    commit('before the rule');
    git('branch', 'old');
    writeFileSync(path.join(origin, 'test', 'commits.ts'), '');
    git('add', '.');
    commit('the rule');
    commit('after the rule');
    git('checkout', '--quiet', 'old');
    commit('beside the rule');
    git('checkout', '--quiet', 'main');
    git('merge', '--quiet', '-m', 'a merge', 'old');
    commit('the newest');
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it('those before the rule, beside it, and merges are left out', () => {
    expect(subjects(origin)).toEqual(['the newest', 'after the rule', 'the rule']);
  });

  it('that is shallow, those are checked that are there', () => {
    const shallow = path.join(folder, 'shallow');
    git('clone', '--quiet', '--depth=1', `file://${origin}`, shallow);
    expect(subjects(shallow)).toEqual(['the newest']);
  });

  it('without a history, as in an archive, there are none', () => {
    const archive = path.join(folder, 'archive');
    mkdirSync(archive);
    expect(subjects(archive)).toEqual([]);
  });
});
