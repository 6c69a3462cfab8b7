// Requests by chance, from the OpenAPI document alone: what it allows, and what it does not.
import fc, { type Arbitrary } from 'fast-check';
import type { Call, Schema } from './document.ts';

/**
 * Values by the name of a member or a parameter, such as ids that are there: else nearly all would
 * be of nobody.
 */
export type Known = Readonly<Record<string, Arbitrary<unknown>>>;
export type Resolve = (schema: Schema) => Schema;

const ITEMS_MAX = 4;
const TEXT_MAX = 40;
const KNOWN_WEIGHT = 6;

/** Values that a schema allows. */
export function allowedBy(schema: Schema, resolve: Resolve, known: Known): Arbitrary<unknown> {
  if (schema.$ref) return allowedBy(resolve(schema), resolve, known);
  if (schema.anyOf) return fc.oneof(...schema.anyOf.map((one) => allowedBy(one, resolve, known)));
  if (schema.const !== undefined) return fc.constant(schema.const);
  if (schema.enum) return fc.constantFrom(...schema.enum);
  switch (schema.type) {
    case 'boolean':
      return fc.boolean();
    case 'null':
      return fc.constant(null);
    case 'integer':
      return integer(schema);
    case 'string':
      return text(schema);
    case 'array': {
      const { minItems = 0, maxItems = ITEMS_MAX, items = {} } = schema;
      const maxLength = Math.max(minItems, Math.min(maxItems, ITEMS_MAX));
      return fc.array(allowedBy(items, resolve, known), { minLength: minItems, maxLength });
    }
    case 'object':
      return object(schema, resolve, known);
    default:
      throw new Error(`no values are made for ${JSON.stringify(schema)}`);
  }
}

function integer({ minimum = 0, maximum = 0 }: Schema): Arbitrary<number> {
  const near = { min: Math.max(minimum, -500), max: Math.min(maximum, 500) };
  return fc.oneof(
    { weight: 6, arbitrary: fc.integer(near) },
    { weight: 1, arbitrary: fc.integer({ min: minimum, max: maximum }) },
    { weight: 1, arbitrary: fc.constantFrom(minimum, maximum) },
  );
}

function text({ format, pattern, minLength = 0, maxLength = TEXT_MAX }: Schema): Arbitrary<string> {
  if (format === 'date-time') {
    const range = { min: new Date('1000-01-01'), max: new Date('2999-01-01'), noInvalidDate: true };
    return fc.date(range).map((date) => date.toISOString());
  }
  const fits = (value: string) => [...value].length >= minLength && [...value].length <= maxLength;
  const some = pattern === undefined ? fc.string({ maxLength: TEXT_MAX }) : fc.stringMatching(new RegExp(pattern, 'u'));
  const ofForm = some
    .map((value) => value.slice(0, maxLength))
    .filter((value) => fits(value) && matches(pattern, value));
  // As long as may be, where the form allows one character several times.
  const long = fc.constant('a'.repeat(maxLength)).filter((value) => matches(pattern, value));
  return matches(pattern, 'a'.repeat(maxLength)) ? fc.oneof({ weight: 9, arbitrary: ofForm }, long) : ofForm;
}

const matches = (pattern: string | undefined, value: string) => new RegExp(pattern ?? '', 'u').test(value);

function object(schema: Schema, resolve: Resolve, known: Known): Arbitrary<object> {
  const {
    properties = {},
    required = [],
    additionalProperties,
    propertyNames,
    minProperties = 0,
    maxProperties,
  } = schema;
  if (additionalProperties) {
    const bounds = { minKeys: minProperties, maxKeys: Math.min(maxProperties ?? ITEMS_MAX, ITEMS_MAX) };
    const names = allowedBy(propertyNames ?? { type: 'string' }, resolve, known) as Arbitrary<string>;
    return fc.dictionary(names, allowedBy(additionalProperties, resolve, known), bounds);
  }
  return record(Object.entries(properties), required, resolve, known).filter(
    (value) => Object.values(value).filter((one) => one !== undefined).length >= minProperties,
  );
}

/** What has known values is there nearly always, the rest of what is optional half of the time. */
function record(
  members: [name: string, schema: Schema][],
  required: readonly string[],
  resolve: Resolve,
  known: Known,
): Arbitrary<Record<string, unknown>> {
  const values = members.map(([name, schema]) => {
    const any = allowedBy(schema, resolve, known);
    const arbitrary = known[name];
    if (arbitrary === undefined) return [name, any] as const;
    const others = required.includes(name) ? [any] : [any, fc.constant(undefined)];
    return [name, fc.oneof({ weight: KNOWN_WEIGHT, arbitrary }, ...others)] as const;
  });
  const requiredKeys = members.map(([name]) => name).filter((name) => required.includes(name) || known[name]);
  return fc.record(Object.fromEntries(values), { requiredKeys });
}

export interface Asked {
  path: Record<string, unknown>;
  query: Record<string, unknown>;
  header: Record<string, unknown>;
  body: unknown;
}

/** What the document allows to send with a call. */
export function requestOf(call: Call, resolve: Resolve, known: Known): Arbitrary<Asked> {
  const of = (where: string) => {
    const parameters = call.parameters.filter((one) => one.in === where);
    const required = parameters.filter((one) => one.required).map(({ name }) => name);
    return record(
      parameters.map(({ name, schema }) => [name, schema]),
      required,
      resolve,
      known,
    );
  };
  const body = call.operation.requestBody?.content['application/json'].schema;
  return fc.record({
    path: of('path'),
    query: of('query'),
    header: of('header'),
    body: body ? allowedBy(body, resolve, known) : fc.constant(undefined),
  }) as Arbitrary<Asked>;
}

/**
 * One place of a body, or a parameter of the query, replaced, left out or added. Most of these the
 * document forbids.
 */
export function damaged(asked: Arbitrary<Asked>): Arbitrary<Asked> {
  const other = fc.oneof(
    fc.constantFrom(null, '', 0, -1, 2 ** 53, true, 'a b', '\u0000', [], {}, 'x'.repeat(600)),
    fc.jsonValue({ maxDepth: 2 }),
  );
  return fc.tuple(asked, fc.nat(), other, fc.constantFrom('replace', 'remove', 'add')).map(([one, at, value, how]) => {
    const { body, query } = one;
    // As JSON: of an object with a `toString` of its own String() makes nothing.
    const said = typeof value === 'string' ? value : JSON.stringify(value);
    if (body === undefined) return { ...one, query: changed(query, at, said, how) as Record<string, unknown> };
    return { ...one, body: changed(body, at, value, how) };
  });
}

function changed(value: unknown, at: number, other: unknown, how: string): unknown {
  if (typeof value !== 'object' || value === null) return other;
  if (Array.isArray(value)) {
    return value.length === 0
      ? other
      : value.with(at % value.length, changed(value[at % value.length], at, other, how));
  }
  const names = Object.keys(value);
  const name = names[at % Math.max(1, names.length)];
  if (how === 'add' || name === undefined) return { ...value, unknown: other };
  const { [name]: old, ...rest } = value as Record<string, unknown>;
  if (how === 'remove') return rest;
  return { ...rest, [name]: Array.isArray(old) ? changed(old, at, other, how) : other };
}
