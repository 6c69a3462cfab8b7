// Whether this clone can be released: a clean main that its upstream has nothing on top of, one
// version everywhere, a dated section of the changelog, and a tag that does not exist yet. It only
// reads, so that a refusal changes nothing.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { changelogProblem, type Notes, notesOf } from './changelog.ts';

const BRANCH = 'main';
const FILES_SHOWN_MAX = 10;

export interface Release {
  version: string;
  /** Of git. */
  tag: string;
  /** The whole hash. */
  commit: string;
  notes: Notes;
  /** Where it is pushed to. */
  remote: string;
}

/** A sentence for each thing that has to change first, or what would be released. */
export function readState(root: string): { problems: string[] } | { release: Release } {
  const git = gitIn(root);
  const commit = git('rev-parse', 'HEAD');
  if (commit === undefined || path.resolve(git('rev-parse', '--show-toplevel') ?? '') !== path.resolve(root))
    return { problems: ['this folder is not a git clone with a commit, so there is nothing to tag'] };

  const { version } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as { version: string };
  const changelog = readFileSync(path.join(root, 'CHANGELOG.md'), 'utf8');
  const tag = `v${version}`;
  const problems = [
    branchProblem(git),
    treeProblem(root),
    upstreamProblem(git),
    versionProblem(root, version),
    changelogProblem(changelog, version),
    tagProblem(git, tag),
    git('var', 'GIT_COMMITTER_IDENT') === undefined
      ? 'git does not know who makes the tag: set git config user.name and user.email'
      : undefined,
  ].filter((problem) => problem !== undefined);
  if (problems.length > 0) return { problems };
  return { release: { version, tag, commit, notes: notesOf(changelog, version), remote: remoteOf(git) } };
}

/** Undefined where git fails. Its output without the last line feed. */
type Git = (...command: string[]) => string | undefined;

export function gitIn(root: string): Git {
  return (...command) => {
    const { status, stdout } = spawnSync('git', command, { cwd: root, encoding: 'utf8' });
    return status === 0 ? stdout.replace(/\n$/, '') : undefined;
  };
}

/**
 * Also looked at after the tests and the build: what they leave behind is not part of the commit.
 */
export function treeProblem(root: string): string | undefined {
  const changed = gitIn(root)('status', '--porcelain');
  if (changed === '') return undefined;
  const files = changed?.split('\n') ?? [];
  const more = files.length > FILES_SHOWN_MAX ? [`and ${files.length - FILES_SHOWN_MAX} more`] : [];
  return ['these files are not as committed:', ...files.slice(0, FILES_SHOWN_MAX), ...more].join('\n    ');
}

function branchProblem(git: Git): string | undefined {
  const branch = git('symbolic-ref', '--short', '--quiet', 'HEAD');
  if (branch === BRANCH) return undefined;
  const state = branch === undefined ? 'no branch is checked out' : `the branch is ${branch}`;
  return `${state}, and releases are made on ${BRANCH}: git switch ${BRANCH}`;
}

/** As of the last fetch: a release asks no network. */
function upstreamProblem(git: Git): string | undefined {
  const missing = Number(git('rev-list', '--count', `HEAD..${BRANCH}@{upstream}`) ?? 0);
  if (missing === 0) return undefined;
  return `the upstream branch has commits that ${BRANCH} lacks (${missing}): git pull, or the push is refused`;
}

function versionProblem(root: string, version: string): string | undefined {
  if (!/^\d+\.\d+\.\d+$/.test(version)) return `package.json says version ${version}, which is not of the form 1.2.3`;
  const lock = JSON.parse(readFileSync(path.join(root, 'package-lock.json'), 'utf8'));
  const locked = new Set([lock.version, lock.packages[''].version]);
  if (locked.size === 1 && locked.has(version)) return undefined;
  return `package-lock.json says version ${[...locked].join(' and ')}, package.json ${version}: npm install --package-lock-only`;
}

function tagProblem(git: Git, tag: string): string | undefined {
  const tagged = git('rev-parse', '--short', '--quiet', '--verify', `refs/tags/${tag}^{commit}`);
  if (tagged === undefined) return undefined;
  return `the tag ${tag} exists, at ${tagged}: raise the version, or if it was never pushed, git tag --delete ${tag}`;
}

function remoteOf(git: Git): string {
  return git('config', `branch.${BRANCH}.remote`) ?? git('remote')?.split('\n')[0] ?? 'origin';
}
