// Bodies as they are read: whatever JSON.parse makes of a text, unless it is one that two parsers
// could read differently, or one that takes long to parse.
import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createBodyReader } from '../../src/api/http/json-body.ts';
import { createPieces } from '../../src/api/http/pieces.ts';

const { readJsonBody, readListBody } = createBodyReader(createPieces());
const BYTES_MAX = 4_194_304;

/** As it comes from a client, in pieces. */
function requestOf(text: string): IncomingMessage {
  const bytes = Buffer.from(text);
  const size = Math.ceil(bytes.length / 7);
  const pieces = Array.from({ length: 7 }, (_, index) => bytes.subarray(index * size, (index + 1) * size));
  const headers = { 'content-type': 'application/json', 'transfer-encoding': 'chunked' };
  return Object.assign(Readable.from(pieces), { headers }) as never;
}

const read = (text: string) => readJsonBody(requestOf(text), BYTES_MAX);
/** Each list of the outermost object, its items read one by one. */
const readApart = (text: string) =>
  readListBody(
    requestOf(text),
    BYTES_MAX,
    async () => {},
    (_, read) => read(),
    async ({ outline, read }) => {
      const isObject = typeof outline === 'object' && outline !== null && !Array.isArray(outline);
      if (!isObject) return outline;
      const entries = Object.entries(outline).map(([name, value]) => [
        name,
        Array.isArray(value) ? value.map(read) : value,
      ]);
      return Object.fromEntries(entries);
    },
  );
/** What is wrong, in a word. */
const faultOf = (reading: Promise<unknown>) =>
  reading.then(
    () => undefined,
    (problem) => problem.details.errors[0].what as string,
  );

const name = fc.oneof(fc.string(), fc.constantFrom('a', 'updates', '', 'A"}],[{', '\\', '\u2028é', ':,'));
const leaf = fc.oneof(fc.maxSafeInteger(), fc.string(), name, fc.boolean(), fc.constant(null));
const { value } = fc.letrec((tie) => ({
  value: fc.oneof({ depthSize: 'small', maxDepth: 4 }, leaf, tie('list'), tie('object')),
  list: fc.array(tie('value'), { maxLength: 6 }),
  object: fc.dictionary(name, tie('value'), { maxKeys: 6 }),
}));
const body = fc.dictionary(name, fc.oneof(value, fc.array(value, { maxLength: 10 })), { maxKeys: 5 });
const spacing = fc.constantFrom(undefined, 1, '\t');
/** Where a name has to be written with one. */
const hasEscapedName = (value: unknown): boolean =>
  typeof value === 'object' &&
  value !== null &&
  (Object.values(value).some(hasEscapedName) ||
    (!Array.isArray(value) && Object.keys(value).some((one) => JSON.stringify(one).includes('\\'))));
const hasProto = (text: string) => text.includes('__proto__');

describe('a body', () => {
  it('is what JSON.parse makes of it, also where its items are read one by one', () =>
    fc.assert(
      fc.asyncProperty(body, spacing, async (given, space) => {
        const text = JSON.stringify(given, null, space);
        if (hasProto(text)) return;
        if (hasEscapedName(given)) {
          expect(await faultOf(read(text))).toMatch(/name with an escape/);
          expect(await faultOf(readApart(text))).toMatch(/name with an escape/);
          return;
        }
        expect(await read(text)).toEqual(JSON.parse(text));
        expect(await readApart(text)).toEqual(JSON.parse(text));
      }),
    ));

  it('is refused where a part of it is missing, doubled or changed, whenever JSON.parse refuses it', () =>
    fc.assert(
      fc.asyncProperty(body, fc.nat(), fc.nat(3), fc.string(), async (given, at, length, text) => {
        const whole = JSON.stringify(given);
        const start = at % whole.length;
        const changed = whole.slice(0, start) + text + whole.slice(start + length);
        if (hasProto(changed)) return;
        let parsed: unknown;
        try {
          parsed = JSON.parse(changed);
        } catch {
          expect(await faultOf(read(changed))).toBeDefined();
          expect(await faultOf(readApart(changed))).toBeDefined();
          return;
        }
        const fault = await faultOf(read(changed));
        expect((await faultOf(readApart(changed))) === undefined).toBe(fault === undefined);
        if (fault === undefined) expect(await readApart(changed)).toEqual(parsed);
        else expect(fault).toMatch(/same name twice|fraction or an exponent|name with an escape/);
      }),
      { numRuns: 500 },
    ));

  it.each([
    ['{"a":[{"b":1,"b":2}]}', /same name twice/],
    ['{"a":[{"b":1}],"a":[{"b":1}]}', /same name twice/],
    ['{"a":[{"b":[{"c":1,"\\u0063":2}]}]}', /name with an escape/],
    ['{"a":[{"b":[{"c":1,"\\u0064" : 2}]}]}', /name with an escape/],
    ['{"\\u0061":[{"b":1}]}', /name with an escape/],
    ['{"a":[{"b":1.5}]}', /fraction/],
    ['{"a":[{"b":1e5}]}', /exponent/],
    ['{"a":[{"b":{"__proto__":1}}]}', /__proto__/],
    ['{"a":[{"b":1]}', /not valid JSON/],
    ['{"a":[{"b":[1}]}]}', /not valid JSON/],
    ['{"a":[{"b":1}{"b":1}]}', /not valid JSON/],
    ['{"a":[1{"b":1}]}', /not valid JSON/],
    ['{"a":[{"b":1},]}', /not valid JSON/],
    ['{"a":[{"b":1', /not valid JSON/],
    ['', /empty/],
  ])('%s is refused, also in an item', async (text, fault) => {
    expect(await faultOf(read(text))).toMatch(fault);
    expect(await faultOf(readApart(text))).toMatch(fault);
  });
});

it('is not read with a name that another body had in its place, as JSON.parse may', async () => {
  await faultOf(read('{"c":1,"\\\\":2}'));
  expect(await faultOf(read('{"c":1,"\\u0064":2}'))).toMatch(/name with an escape/);
  expect(await read('{"c":1,"d":"\\u0064"}')).toEqual({ c: 1, d: 'd' });
});

describe('a body that takes long to parse', () => {
  const list = (count: number, text: (index: number) => string) =>
    `[${Array.from({ length: count }, (_, i) => text(i))}]`;
  const object = (count: number) => `{${Array.from({ length: count }, (_, index) => `"n${index}":1`)}}`;

  it.each([
    ['64 names', object(64), undefined],
    ['65 names', object(65), /more than 64 names/],
    ['8 levels', `${'['.repeat(8)}${']'.repeat(8)}`, undefined],
    ['9 levels', `${'['.repeat(9)}${']'.repeat(9)}`, /more than 8 deep/],
    ['a text of 8,190 bytes', `"${'é'.repeat(4095)}"`, undefined],
    ['a text of 8,192 bytes', `"${'é'.repeat(4096)}"`, /text of more than 8192 bytes/],
    ['990 items', list(990, String), undefined],
    ['1,010 items', list(1010, String), /more than 1000 names and items/],
    ['objects with 1,010 names in all', list(20, () => object(50)), /more than 1000 names and items/],
    ['a half of it', `{"a":${'['.repeat(9)}`, /more than 8 deep/],
  ])('is refused where it is more than we need: %s', async (_, text, fault) => {
    const found = await faultOf(read(text));
    if (fault) expect(found).toMatch(fault);
    else expect(found).toBe(undefined);
  });

  it.each([
    ['50 items of 900 names each', `{"a":${list(50, () => list(15, () => object(60)))}}`, undefined],
    [
      'an item with 1,010 names',
      `{"a":${list(2, () => list(20, () => object(50)))}}`,
      /an item of more than 1000 names/,
    ],
    ['2,000 items', `{"a":${list(2000, () => '{}')}}`, undefined],
    ['2,001 items', `{"a":${list(2001, () => '{}')}}`, /list of more than 2000 items/],
    ['2,001 numbers', `{"a":${list(2001, String)}}`, /list of more than 2000 items/],
    ['2,001 items without commas', `{"a":[${'{}'.repeat(2001)}]}`, /list of more than 2000 items/],
    ['9 levels in an item', `{"a":[${'['.repeat(7)}${']'.repeat(7)}]}`, /more than 8 deep/],
  ])('counts the items of a list apart: %s', async (_, text, fault) => {
    const found = await faultOf(readApart(text));
    if (fault) expect(found).toMatch(fault);
    else expect(found).toBe(undefined);
  });
});
