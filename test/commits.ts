// The commits that must obey the rule of CONTRIBUTING.md: those whose tree has this file. Older
// ones broke the rule before it was checked, and remain as they are. So no hash is written down
// here, and a shallow clone, a rebased branch and one that began before the rule are judged by what
// they contain. Merge commits are left out: a machine words them.
import { spawnSync } from 'node:child_process';

const SUBJECT_CHARACTERS_MAX = 72;
const HERE = 'test/commits.ts';
const OUTPUT_BYTES_MAX = 200_000_000;
/** `Signed-off-by: a name` says who, not why. */
const TRAILER = /^[A-Z][A-Za-z-]*: \S/;

export interface Commit {
  hash: string;
  message: string;
}

/** Newest first. None where there is no git, no clone, or nothing of its history since the rule. */
export function commitsUnderTheRule(folder: string): Commit[] {
  const log = git(folder, ['log', '--no-merges', '-z', '--format=%H%n%B', 'HEAD']);
  const commits = log.split('\0').flatMap((record) => {
    const [hash = '', ...lines] = record.split('\n');
    return hash === '' ? [] : { hash, message: lines.join('\n').trimEnd() };
  });
  const asked = commits.map(({ hash }) => `${hash}:${HERE}\n`).join('');
  const answers = git(folder, ['cat-file', '--batch-check'], asked).split('\n');
  return commits.filter((_, index) => / blob \d+$/.test(answers[index] ?? ''));
}

/** What the message lacks, as parts of a sentence. */
export function problemsOf(message: string): string[] {
  const [subject = '', second = '', ...body] = message.split('\n');
  const characters = [...subject].length;
  const problems: string[] = [];
  if (characters > SUBJECT_CHARACTERS_MAX)
    problems.push(`its subject has ${characters} characters, at most ${SUBJECT_CHARACTERS_MAX} are allowed`);
  if (second.trim() !== '') problems.push('its second line is not empty');
  if (body.every((line) => line.trim() === '' || TRAILER.test(line))) problems.push('it has no body that says why');
  return problems;
}

/** '' where it fails. */
function git(folder: string, command: readonly string[], input = ''): string {
  const options = { cwd: folder, encoding: 'utf8', input, maxBuffer: OUTPUT_BYTES_MAX } as const;
  const { status, stdout } = spawnSync('git', command, options);
  return status === 0 ? stdout : '';
}
