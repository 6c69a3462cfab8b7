// The command line of subscribers: what it takes, and that it says what is wrong with the rest.
import { expect, it } from 'vitest';
import { UsageError } from '../../src/cli/arguments.ts';
import { parseRequest } from '../../src/cli/subscribers/request.ts';

const parse = (line: string) => parseRequest(line.split(' ').filter(Boolean));

it('takes what it says it takes', () => {
  expect(parse('')).toEqual({ command: 'list', json: false });
  expect(parse('list --json')).toEqual({ command: 'list', json: true });
  expect(parse('resume q')).toEqual({ command: 'resume', queue: 'q', from: undefined, rate: 2000, json: false });
  const from = new Date('2026-01-01T00:00:00Z');
  expect(parse('resume q --from 2026-01-01T00:00:00Z --rate 5')).toMatchObject({ from, rate: 5 });
  expect(parse('forget q')).toEqual({ command: 'forget', queue: 'q', json: false });
  expect(parse('resume q --help')).toBe('help');
});

it.each([
  ['drop q', 'There is no command drop'],
  ['resume', 'specify the queue'],
  ['forget', 'specify the queue'],
  ['list q', 'One argument too many: q'],
  ['resume q r', 'One argument too many: r'],
  ['--rate 5', 'are only for resume'],
  ['forget q --from 2026-01-01T00:00:00Z', 'are only for resume'],
  ['resume q --from yesterday', '--from yesterday'],
  ['resume q --rate 0', '--rate 0'],
  ['resume q --rate 100001', '--rate 100001'],
  ['resume q --all', '--all'],
])('says what is wrong with %j', (line, what) => {
  expect(() => parse(line)).toThrow(UsageError);
  expect(() => parse(line)).toThrow(what);
});
