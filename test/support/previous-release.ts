// The release before the present one, as files: of the newest tag that is not this commit. While
// there is no tag, of the commit that changed a numbered script last: before the first release they
// may still be edited.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
/** What runs. */
const PARTS = ['src', 'migrations', 'package.json'];

export interface Release {
  /** A tag, or a commit. */
  name: string;
  commit: string;
}

/** Undefined where this is no clone, or a shallow one. */
export function previousRelease(): Release | undefined {
  if (git('rev-parse', '--is-shallow-repository') !== 'false') return undefined;
  const head = git('rev-parse', 'HEAD');
  const tags = git('tag', '--list', 'v*', '--merged', 'HEAD', '--sort=-version:refname')?.split('\n') ?? [];
  for (const name of tags.filter((tag) => tag !== '')) {
    const commit = git('rev-parse', '--verify', '--quiet', `${name}^{commit}`);
    if (commit && commit !== head) return { name, commit };
  }
  const commit = git('log', '-1', '--format=%H', '--', 'migrations/[0-9]*.do.*.sql');
  return commit ? { name: commit, commit } : undefined;
}

/** Its files and dependencies. */
export function checkOut({ commit }: Release, folder: string): void {
  mkdirSync(folder, { recursive: true });
  const archive = spawnSync('git', ['archive', commit, ...PARTS, 'package-lock.json'], { cwd: ROOT, maxBuffer: 1e9 });
  const { status, stderr } = spawnSync('tar', ['-x', '-C', folder], { input: archive.stdout });
  if (archive.status !== 0 || status !== 0) throw new Error(`${commit} was not unpacked: ${archive.stderr}${stderr}`);
  if (areOurs(dependenciesOf(folder))) linkDependencies(folder);
  else installDependencies(folder);
}

/** The files of this clone as they are now. */
export function copyPresent(folder: string): void {
  for (const part of PARTS) cpSync(path.join(ROOT, part), path.join(folder, part), { recursive: true });
  linkDependencies(folder);
}

function linkDependencies(folder: string): void {
  symlinkSync(path.join(ROOT, 'node_modules'), path.join(folder, 'node_modules'));
}

/** By the registry, or the cache of npm. */
function installDependencies(folder: string): void {
  const args = ['ci', '--omit=dev', '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline'];
  const { status, stderr } = spawnSync('npm', args, { cwd: folder, encoding: 'utf8' });
  if (status !== 0) throw new Error(`the dependencies of ${folder} could not be installed: ${stderr}`);
}

type Dependencies = Readonly<Record<string, string>>;

function dependenciesOf(folder: string): Dependencies {
  return JSON.parse(readFileSync(path.join(folder, 'package.json'), 'utf8')).dependencies;
}

/** Whether this clone has each of them in the same major version. */
function areOurs(wanted: Dependencies): boolean {
  const present = dependenciesOf(ROOT);
  const major = (range = '') => /\d+/.exec(range)?.[0];
  return Object.entries(wanted).every(([name, range]) => major(present[name]) === major(range));
}

function git(...args: string[]): string | undefined {
  const { status, stdout } = spawnSync('git', args, { cwd: ROOT, encoding: 'utf8' });
  return status === 0 ? stdout.trim() : undefined;
}
