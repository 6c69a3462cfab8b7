// The command line of replay: what it takes, and that it says what is wrong with the rest.
import { expect, it } from 'vitest';
import { UsageError } from '../../src/cli/arguments.ts';
import { parseRequest } from '../../src/cli/replay/request.ts';

it('takes what it says it takes', () => {
  const line = '--queue q --account a:b --from-version 2 --from 2026-01-01T00:00:00Z --after a:b:7 --rate 5 --json';
  expect(parseRequest(line.split(' '))).toEqual({
    queue: 'q',
    handOver: false,
    selection: {
      accountId: 'a:b',
      fromVersion: 2,
      toVersion: undefined,
      from: new Date('2026-01-01T00:00:00Z'),
      to: undefined,
    },
    after: { accountId: 'a:b', version: 7 },
    rate: 5,
    json: true,
  });
  expect(parseRequest('--exchange --from-version 0 --to-version 0 --after a:0'.split(' '))).toMatchObject({
    selection: { fromVersion: 0, toVersion: 0 },
    after: { accountId: 'a', version: 0 },
  });
  expect(parseRequest(['--exchange', '--all'])).toMatchObject({ queue: undefined, rate: 2000, json: false });
  expect(parseRequest(['--help'])).toBe('help');
});

it.each([
  ['', 'Specify the destination'],
  ['--queue q --exchange --all', 'Specify the destination'],
  ['--queue q', 'Specify a selection'],
  ['--queue q --all --account a', 'not both'],
  ['--exchange --missed 0', '--missed 0'],
  ['--queue q --missed 3', 'needs --exchange'],
  ['--exchange --missed 3 --all', 'is a selection of its own'],
  ['--exchange --missed 3 --account a', 'is a selection of its own'],
  ['--queue q --account a/b', '--account a/b'],
  ['--queue q --from-version -1', '--from-version'],
  ['--queue q --from-version 0.5', '--from-version 0.5'],
  ['--queue q --to-version x', '--to-version x'],
  ['--queue q --from-version 3 --to-version 2', 'nothing lies between'],
  ['--queue q --from yesterday', '--from yesterday'],
  ['--queue q --all --rate 0', '--rate 0'],
  ['--queue q --all --after a', '--after a'],
  ['--exchange --all --hand-over', '--hand-over needs'],
  ['--queue q --account a --hand-over', '--hand-over needs'],
  ['--queue q --all --hand-over --after a:1', '--hand-over starts from the beginning'],
  ['--queue q --all --fast', '--fast'],
])('refuses %j', (options, what) => {
  const parse = () => parseRequest(options.split(' ').filter(Boolean));
  expect(parse).toThrow(UsageError);
  expect(parse).toThrow(what);
});
