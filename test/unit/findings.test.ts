// What zod finds is said in our words, wherever it is found: no sentence of zod's own reaches
// anyone.
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { calls } from '../../src/api/calls/table.ts';
import { parseRequest } from '../../src/cli/replay/request.ts';
import { actor, amount, moment } from '../../src/shared/balance.ts';
import { chainHead } from '../../src/shared/chain-head.ts';
import { readApiSettings, readWorkerSettings, SettingsError, settingNames } from '../../src/shared/config.ts';
import { balanceEvent } from '../../src/shared/events.ts';
import { findings, z } from '../../src/shared/zod.ts';

const ZODS_OWN = /\b(invalid|unrecognized|too (small|big)|expected|received|input)\b/i;
/** After the name of a setting, an option or a field it makes a sentence. */
const OURS = /^(must|is|has|holds|needs|names|of an atomic|cannot) /;

function expectOurs(messages: readonly string[], where: string): void {
  for (const message of messages) {
    expect(message, where).not.toMatch(ZODS_OWN);
    expect(message, where).toMatch(OURS);
  }
}

const messagesOf = (schema: z.ZodType, value: unknown): string[] =>
  schema.safeParse(value).error?.issues.map(({ message }) => message) ?? [];

/**
 * Each kind that zod knows, with what is said of it. The compiler asks for one that a new release
 * adds.
 */
const KINDS: Record<z.core.$ZodIssueCode, [schema: z.ZodType, value: unknown, message: string][]> = {
  invalid_type: [
    [z.string(), undefined, 'is required'],
    [z.string(), 1, 'must be text'],
    [z.number(), [], 'must be a number'],
    [z.number(), '1', 'must be a number without quotes'],
    [amount, '1', 'must be a number without quotes'],
    [z.coerce.number(), 'four', 'must be a number'],
    [z.int(), 1.5, 'must be a whole number'],
    [z.boolean(), 'yes', 'must be true or false'],
    [z.strictObject({}), 1, 'must be an object'],
    [z.record(z.string(), z.string()), [], 'must be an object'],
    [z.array(z.string()), {}, 'must be a list'],
    [z.null(), 1, 'must be null'],
    [z.bigint(), 1, 'must be a bigint'],
  ],
  invalid_value: [
    [z.enum(['on', 'off']), 'maybe', 'must be one of on, off'],
    [z.literal('on'), 'off', 'must be on'],
  ],
  too_small: [
    [z.string().min(3), 'a', 'must have at least 3 characters'],
    [z.array(z.number()).min(1), [], 'must hold at least 1'],
    [z.int().min(1), 0, 'must be at least 1'],
    [z.number().gt(1), 1, 'must be above 1'],
  ],
  too_big: [
    [z.string().max(1), 'ab', 'must have at most 1 characters'],
    [z.array(z.number()).max(1), [1, 2], 'must hold at most 1'],
    [z.int().max(1), 2, 'must be at most 1'],
    [z.number().lt(1), 1, 'must be below 1'],
  ],
  not_multiple_of: [[z.number().multipleOf(5), 3, 'must be a multiple of 5']],
  invalid_format: [
    [z.string().regex(/^a$/), 'b', 'must be of the form /^a$/'],
    [z.iso.datetime(), 'now', 'must be a time such as 2026-11-23T19:43:56.550Z'],
    [z.url(), 'here', 'must be a URL'],
    [z.uuid(), 'one', expect.stringMatching(/^must be of the form \/\^/) as unknown as string],
  ],
  unrecognized_keys: [[z.strictObject({}), { a: 1, b: 1 }, 'has unknown members, leave them out: a, b']],
  invalid_key: [[z.record(z.string().regex(/^a$/, 'must be a'), z.string()), { b: '' }, 'must be a']],
  invalid_element: [[z.map(z.string(), z.string().max(1)), new Map([['k', 'ab']]), 'must have at most 1 characters']],
  invalid_union: [[z.union([z.string(), z.boolean()]), 1, 'must be text']],
  custom: [[z.string().refine(() => false), 'x', 'is not allowed here']],
};

it.each(Object.entries(KINDS).flatMap(([code, cases]) => cases.map((one) => [code, ...one] as const)))(
  '%s is worded here: %#',
  (_code, schema, value, message) => {
    const [first] = messagesOf(schema, value);
    expect(first).toEqual(message);
    expect(first).not.toMatch(ZODS_OWN);
  },
);

it('what is wrong with a whole is one line, the first few places of it', () => {
  const { error } = chainHead.safeParse({ accountId: 'a b', version: -1, epoch: 1, hash: 'x', more: 1 });
  expect(findings(error as z.ZodError).split('; ')).toEqual([
    expect.stringMatching(/^accountId must be 1 to 64 characters/),
    'version must be at least 0',
    'hash must be 64 hexadecimal digits in lower case',
    'has unknown members, leave them out: more',
  ]);
  expect(findings(z.array(z.string()).safeParse(Array(99).fill(1)).error as z.ZodError).split('; ')).toHaveLength(5);
});

const TEXTS = [
  'x',
  ' ',
  '-1',
  '0',
  '1.5',
  '1e99',
  '99999999999999999999',
  'NaN',
  'true',
  '{}',
  'é\0',
  'http://',
  'a'.repeat(300),
];

it('each setting says what it must be, in one sentence, whatever it is given', () => {
  const good = { DATABASE_URL: 'postgres://localhost/balance', AMQP_URL: 'amqp://localhost' };
  const seen = new Set<string>();
  for (const [read, names] of [
    [readApiSettings, settingNames.api],
    [readWorkerSettings, settingNames.worker],
  ] as const) {
    for (const name of names) {
      for (const value of TEXTS) {
        try {
          read({ ...good, [name]: value });
        } catch (error) {
          if (!(error instanceof SettingsError)) throw error;
          const lines = error.message.split('\n').filter((line) => line.startsWith(`${name} `));
          expect(lines, `${name}=${value}`).toHaveLength(1);
          expectOurs(
            lines.map((line) => line.slice(name.length + 1)),
            `${name}=${value}`,
          );
          seen.add(name);
        }
      }
    }
  }
  expect(seen).toContain('LANES');
  expect(seen.size).toBeGreaterThan(25);
});

/** A value with each of its parts, and itself, replaced by each of the others. */
function* damaged(value: unknown, by: readonly unknown[]): Generator<unknown> {
  yield* by;
  if (typeof value !== 'object' || value === null) return;
  for (const [name, part] of Object.entries(value)) {
    for (const other of damaged(part, by)) {
      if (Array.isArray(value)) yield value.with(Number(name), other);
      else yield { ...value, [name]: other };
    }
  }
}

const VALUES = [
  undefined,
  null,
  true,
  0,
  -1,
  1.5,
  1e300,
  '',
  'é\0',
  'a b',
  'a'.repeat(300),
  [],
  {},
  { 'B!': 1 },
  { b: '\0' },
];

it.each(calls)('$method $path says what its fields must be', ({ id, body, query, pathSchema }) => {
  if (body) {
    const members = {
      ...Object.values(body.examples)[0],
      metadata: { a: 'b' },
      legs: [{ accountId: 'a', amount: 1 }],
      more: 1,
    };
    for (const value of damaged(members, VALUES)) expectOurs(messagesOf(body.schema, value), id);
  }
  for (const schema of [query, pathSchema]) {
    for (const name of Object.keys(schema?.shape ?? {})) {
      for (const value of [...TEXTS, ['a', 'b'], undefined]) {
        expectOurs(messagesOf(schema as z.ZodType, { [name]: value }), `${id} ${name}`);
      }
    }
  }
});

it('events and kept heads are refused in our words too', () => {
  for (const schema of [balanceEvent, chainHead, actor, moment()]) {
    for (const value of VALUES) expectOurs(messagesOf(schema, value), String(value));
  }
});

it('options say what they must be', () => {
  const options = ['--queue', '--account', '--from-version', '--to-version', '--from', '--to', '--missed', '--rate'];
  for (const option of options) {
    for (const value of ['', ...TEXTS.filter((text) => !text.startsWith('-'))]) {
      const args = ['--queue', 'q', ...(option === '--missed' ? [] : ['--account', 'a']), option, value];
      const refusal = messageOf(() => parseRequest(args));
      expect(refusal ?? '', `${option} ${value}`).not.toMatch(ZODS_OWN);
    }
  }
  expect(messageOf(() => parseRequest(['--exchange', '--all', '--rate', '0']))).toBe(
    '--rate 0: it must be a whole number from 1 to 100000.',
  );
});

function messageOf(work: () => unknown): string | undefined {
  try {
    work();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

it('no other file takes zod as it comes', () => {
  const sources = fileURLToPath(new URL('../../src/', import.meta.url));
  const files = readdirSync(sources, { recursive: true, encoding: 'utf8' }).filter((file) => /\.m?[jt]s$/.test(file));
  const taking = files.filter((file) => /['"]zod(\/[^'"]*)?['"]/.test(readFileSync(sources + file, 'utf8')));
  expect(taking).toEqual(['shared/zod.ts']);
});
