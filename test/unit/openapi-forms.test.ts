// What generators of code stumble over is not in the documents: a string or a list without a bound,
// an integer without a format, a form that only JavaScript can read.
import { expect, it } from 'vitest';
import { asyncApiDocument } from '../../src/api/reference/asyncapi.ts';
import { openApiDocument } from '../../src/api/reference/openapi.ts';
import { NO_CONTROLS, reference } from '../../src/shared/balance.ts';
import { topologyOf } from '../../src/shared/topology.ts';
import type { Schema } from '../support/openapi/document.ts';

/** Each object in a document that says what type it is, with its place. */
function* schemasIn(value: unknown, place = ''): Generator<[place: string, schema: Schema]> {
  if (typeof value !== 'object' || value === null) return;
  if (!Array.isArray(value) && typeof (value as Schema).type === 'string') yield [place, value as Schema];
  for (const [name, part] of Object.entries(value)) {
    if (name !== 'examples' && name !== 'example') yield* schemasIn(part, `${place}/${name}`);
  }
}

const openApi = openApiDocument('1.0.0', 'required');
const schemas = [...schemasIn(openApi)];
const EXPORT = /\/export\/get\/responses\/200\/content\//;

it('bounds every string and list', () => {
  const strings = schemas.filter(([place, { type }]) => type === 'string' && !EXPORT.test(place));
  const lists = schemas.filter(([, { type }]) => type === 'array');
  expect(strings.length).toBeGreaterThan(100);
  expect(lists.length).toBeGreaterThan(10);
  for (const [place, { maxLength, enum: values, const: value }] of strings) {
    expect(maxLength ?? values ?? value, place).toBeDefined();
  }
  for (const [place, { maxItems }] of lists) expect(maxItems, place).toBeGreaterThan(0);
});

it('says how many bits an integer has', () => {
  const integers = schemas.filter(([, { type }]) => type === 'integer');
  expect(integers.length).toBeGreaterThan(50);
  for (const [place, { format, minimum = 0, maximum = 0 }] of integers) {
    const isSmall = minimum >= -(2 ** 31) && maximum < 2 ** 31;
    expect(format, place).toBe(isSmall ? 'int32' : 'int64');
  }
  const ofEvents = [...schemasIn(asyncApiDocument('1.0.0', topologyOf('test')))];
  const amount = ofEvents.find(([place]) => place.endsWith('/data/properties/amount'));
  expect(amount?.[1].format).toBe('int64');
});

it('writes no form with look-ahead or look-behind, which Go and Rust cannot', () => {
  const patterns = schemas.flatMap(([, { pattern }]) => pattern ?? []);
  expect(patterns.length).toBeGreaterThan(50);
  for (const pattern of new Set(patterns)) {
    expect(pattern).not.toMatch(/\(\?[=!<]/);
    expect(() => new RegExp(pattern, 'u'), pattern).not.toThrow();
  }
});

it('documents for a reference the characters that it takes', () => {
  for (let code = 0; code < 0x300; code += 1) {
    const text = String.fromCodePoint(code);
    expect(new RegExp(NO_CONTROLS, 'u').test(text), `U+${code.toString(16)}`).toBe(reference.safeParse(text).success);
  }
});
