import { expect, it } from 'vitest';
import { UsageError } from '../../src/cli/arguments.ts';
import { parseRequest } from '../../src/cli/dead-letter-request.ts';

it.each([
  [[], 'Give one command'],
  [['list', 'put-back'], 'Give one command'],
  [['purge'], 'Give one command'],
  [['put-back'], 'specify which letters'],
  [['discard', '--yes'], 'specify which letters'],
  [['discard', '--all'], 'add --yes'],
  [['put-back', '--all', '--id', 'x'], 'not both'],
  [['put-back', '--all', '--yes'], '--yes is only for discard'],
  [['put-back', '--all', '--limit', '5'], '--limit is only for list'],
  [['list', '--reason', 'bad'], '--reason bad: it must be one of delivery-limit, expired, maxlen, forged'],
  [['list', '--limit', '0'], '--limit 0: it must be a whole number from 1 to 1000'],
  [['list', '--seconds', '1e9'], '--seconds 1e9'],
  [['list', '--everything'], '--everything'],
])('the command line %j is refused with what is wrong', (args, what) => {
  const parse = () => parseRequest(args);
  expect(parse).toThrow(UsageError);
  expect(parse).toThrow(what);
});

it('says which letters, how many and for how long', () => {
  expect(parseRequest(['list'])).toEqual({
    command: 'list',
    selection: { ids: [], reasons: [] },
    limit: 20,
    seconds: 60,
    json: false,
  });
  expect(
    parseRequest(['discard', '--id', 'x', '--id', 'y', '--reason', 'forged', '--yes', '--seconds', '5', '--json']),
  ).toMatchObject({ command: 'discard', selection: { ids: ['x', 'y'], reasons: ['forged'] }, seconds: 5, json: true });
  expect(parseRequest(['put-back', '--help'])).toBe('help');
});
