import { expect, it } from 'vitest';
import { readArguments, UsageError } from '../../src/cli/arguments.ts';

const options = { rate: { type: 'string' }, json: { type: 'boolean' } } as const;
const read = (args: string[], allowPositionals = false) => readArguments({ args, allowPositionals, options });

it('reads options and arguments', () => {
  expect(read(['--rate', '5', 'list', '--json'], true)).toMatchObject({
    values: { rate: '5', json: true },
    positionals: ['list'],
  });
});

it.each([
  ['an option that is not known', ['--rats', '5'], /--rats/],
  ['an option without its value', ['--rate'], /--rate/],
  ['a value where there is none', ['--json=yes'], /--json/],
  ['an argument where none is taken', ['list'], /list/],
])('refuses %s, and names it', (_, args, named) => {
  const error = expect(() => read(args));
  error.toThrow(UsageError);
  error.toThrow(named);
});
