// `npm run release`: everything of a release but the push. The tag comes last, after tests, package
// and image were good, and is the only lasting change; a person pushes it.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { commandLine, refuse } from '../../src/cli/command-line.ts';
import { engineProblem, makeImage } from './image.ts';
import { makePackage } from './package.ts';
import { gitIn, type Release, readState, treeProblem } from './state.ts';

const HELP = `usage: npm run release -- [--dry-run [--without-tests]]

Makes the release that package.json and CHANGELOG.md name. Looks at the clone, runs npm test, builds
the package and tries it in empty projects, builds the image where a Docker engine answers, and tags
the commit with the section of the changelog as message. It pushes nothing: it prints the commands
that do.

  --dry-run         everything but the tag
  --without-tests   without npm test, to try the rest out; with --dry-run only

exit code: 0 done; 1 refused or failed, and no tag was made; 2 called incorrectly`;

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

const options = commandLine({ 'dry-run': { type: 'boolean' }, 'without-tests': { type: 'boolean' } }, HELP);
if (options['without-tests'] && !options['dry-run'])
  refuse('--without-tests goes with --dry-run only: a release that was not tested is none.');
// A release nobody asked for, and npm pack would only pretend.
if (process.env.npm_config_dry_run === 'true')
  refuse('npm took --dry-run for an option of its own: npm run release -- --dry-run');

// The terminal sends Ctrl-C to the running step as well, which fails; this process reports that.
let interruptedBy: NodeJS.Signals | undefined;
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => (interruptedBy = signal));

const state = readState(ROOT);
if ('problems' in state) stop(['Not released, and nothing was changed:', ...state.problems.map((one) => `- ${one}`)]);
else await make(state.release);

async function make(release: Release): Promise<void> {
  const { version, tag, commit, remote } = release;
  console.log(`clone: ${tag} will be ${commit.slice(0, 9)} of main`);
  try {
    if (options['without-tests']) console.log('tests: left out');
    else await runTests();
    console.log(`package: ${await makePackage(ROOT, version)}`);
    const noEngine = engineProblem();
    if (noEngine === undefined)
      console.log(`image: ${await makeImage(ROOT, `highload-balance:${version}`, version, commit)}`);
    else console.log(`image: not built, because no Docker engine answers here (${noEngine})`);
    if (options['dry-run']) {
      console.log(`tag: left out. Without --dry-run ${tag} would be made now.`);
      return;
    }
    makeTag(release);
  } catch (error) {
    return stop([`Not released, and no tag was made: ${(error as Error).message}`]);
  }
  console.log(
    `tag: ${tag}\n\nNothing was pushed. To publish it:\n\n  git push ${remote} main\n  git push ${remote} ${tag}`,
  );
}

async function runTests(): Promise<void> {
  const child = spawn('npm', ['test'], { cwd: ROOT, stdio: 'inherit' });
  const forward = () => child.kill('SIGTERM');
  process.once('SIGTERM', forward);
  const [code] = await once(child, 'close');
  process.off('SIGTERM', forward);
  if (code !== 0) throw new Error(`npm test failed with exit code ${code}`);
}

/** @throws if commit or files are no longer what was tested. */
function makeTag({ tag, commit, notes }: Release): void {
  if (interruptedBy) throw new Error(`interrupted by ${interruptedBy}`);
  if (gitIn(ROOT)('rev-parse', 'HEAD') !== commit)
    throw new Error('another commit was checked out while the tests ran');
  const problem = treeProblem(ROOT);
  if (problem !== undefined) throw new Error(`after tests and build ${problem}`);
  // By default git would take headings of the notes for comments.
  const command = ['tag', '--annotate', '--cleanup=whitespace', '--file=-', tag, commit];
  const input = `${notes.title}\n\n${notes.text}\n`;
  const { status, stderr } = spawnSync('git', command, { cwd: ROOT, input, encoding: 'utf8' });
  if (status !== 0) throw new Error(`git tag failed: ${stderr.trim()}`);
}

function stop(lines: readonly string[]): void {
  console.error(lines.join('\n'));
  process.exitCode = 1;
}
