// What commands print for a person: names that others chose, and commands to copy.
import { spawnSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { expect, it } from 'vitest';
import { argument, printable } from '../../src/cli/output.ts';

it.each(['billing', 'a.b:c/d@e', 'we ird', '$(x)', "it's", '"', '`x`', 'a;b', '', '\\', '*', '~', '#', '!x'])(
  'an argument %j reaches a command as it is',
  (text) => {
    const { stdout } = spawnSync('sh', ['-c', `printf %s ${argument(text)}`], { encoding: 'utf8' });
    expect(stdout).toBe(text);
  },
);

it('an argument that looks like an option stands behind --', () => {
  expect(argument('--json')).toBe('-- --json');
});

it('nothing that is printed moves the cursor', () => {
  expect(printable('a\u001b[2Jb\n')).toBe('a\\u{1b}[2Jb\\u{a}');
  expect(argument('a\u001b[2J')).toBe("'a\\u{1b}[2J'");
});

it('an output that cannot be written fails the command, with a sentence', () => {
  const full = openSync('/dev/full', 'w');
  try {
    const script = `
      const { runCommand } = await import(${JSON.stringify(import.meta.resolve('../../src/cli/command.ts'))});
      const { print } = await import(${JSON.stringify(import.meta.resolve('../../src/cli/output.ts'))});
      await runCommand(async () => print('a token'));`;
    const options = { stdio: ['ignore', full, 'pipe'] as ['ignore', number, 'pipe'], encoding: 'utf8' as const };
    const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', script], options);
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: expect.stringMatching(/^The output could not be written: ENOSPC.*\n$/),
    });
  } finally {
    closeSync(full);
  }
});

it('an output whose reader has gone ends the command without a stack', () => {
  const script = `
    const { runCommand } = await import(${JSON.stringify(import.meta.resolve('../../src/cli/command.ts'))});
    const { print } = await import(${JSON.stringify(import.meta.resolve('../../src/cli/output.ts'))});
    await runCommand(async () => {
      for (let line = 0; line < 100_000; line += 1) print('a line of some length, again and again');
    });`;
  const pipe = '{ "$0" --input-type=module --eval "$1"; echo "ended $?" >&2; } | true';
  const { stderr } = spawnSync('sh', ['-c', pipe, process.execPath, script], { encoding: 'utf8' });
  expect(stderr).toBe('ended 1\n');
});
