// The OpenAPI document as tests read it: its calls, and what a foreign validator (ajv, JSON Schema
// 2020-12) says of requests and answers.
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { expect } from 'vitest';
import { ANSWER_HEADERS } from '../../../src/shared/answer-headers.ts';
import type { Answer } from '../harness.ts';

export interface Schema {
  $ref?: string;
  type?: string;
  const?: unknown;
  enum?: unknown[];
  anyOf?: Schema[];
  format?: string;
  pattern?: string;
  minLength?: number;
  maxLength?: number;
  minimum?: number;
  maximum?: number;
  items?: Schema;
  minItems?: number;
  maxItems?: number;
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: Schema | false;
  propertyNames?: Schema;
  minProperties?: number;
  maxProperties?: number;
  example?: unknown;
  default?: unknown;
}
export interface Parameter {
  in: 'path' | 'query' | 'header';
  name: string;
  required?: boolean;
  schema: Schema;
}
interface Header {
  required?: boolean;
  schema: Schema;
}
export interface Operation {
  operationId: string;
  tags: string[];
  parameters?: (Parameter | { $ref: string })[];
  requestBody?: { content: { 'application/json': { schema: Schema; examples: Record<string, { value: object }> } } };
  responses: Record<
    string,
    {
      headers?: Record<string, Header | { $ref: string }>;
      content: Record<string, { schema: Schema; examples?: Record<string, unknown> }>;
    }
  >;
}
export interface OpenApi {
  tags: { name: string }[];
  paths: Record<string, Record<string, Operation>>;
  components: Record<string, Record<string, unknown>>;
}
export interface Call {
  method: string;
  path: string;
  operation: Operation;
  /** Without references. */
  parameters: Parameter[];
}

/** Of HTTP itself, or on every answer, for browsers: of no call. */
const OF_NO_CALL = new Set([
  ...['connection', 'content-length', 'content-type', 'date', 'keep-alive', 'transfer-encoding'],
  ...Object.keys(ANSWER_HEADERS).map((name) => name.toLowerCase()),
]);

const escaped = (part: string) => part.replaceAll('~', '~0').replaceAll('/', '~1');

export function readDocument(openApi: OpenApi) {
  const ajv = new Ajv2020({ strict: false, allErrors: true });
  addFormats.default(ajv);
  ajv.addSchema(openApi, 'openapi');
  const validators = new Map<string, ValidateFunction>();

  /** What is wrong with a value, by the schema at this place of the document. */
  function mistakes(place: readonly string[], value: unknown): ValidateFunction['errors'] {
    const $ref = `openapi#/${place.map(escaped).join('/')}`;
    const validate = validators.get($ref) ?? ajv.compile({ $ref });
    validators.set($ref, validate);
    return validate(value) ? null : validate.errors;
  }

  function found<Thing extends object>(one: Thing | { $ref: string }): Thing {
    if (!('$ref' in one)) return one;
    const [, , kind = '', name = ''] = one.$ref.split('/');
    return openApi.components[kind]?.[name] as Thing;
  }

  const calls: Call[] = Object.entries(openApi.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => {
      const parameters = (operation.parameters ?? []).map((one) => found<Parameter>(one));
      return { method, path, operation, parameters };
    }),
  );

  /**
   * Claims that this is an answer that the document states: its status, its headers, its type and
   * its body.
   */
  function checkAnswer({ method, path, operation }: Call, { status, headers, body }: Answer): void {
    const where = `${method} ${path} ${status}`;
    const response = operation.responses[status];
    expect(response, `${where} is documented`).toBeDefined();
    if (response === undefined) return;
    const known = new Map(
      Object.entries(response.headers ?? {}).map(([name, one]) => [name.toLowerCase(), found<Header>(one)]),
    );
    for (const [name, { required, schema }] of known) {
      const text = headers.get(name);
      if (required) expect(text, `${where} has the header ${name}`).not.toBeNull();
      if (text === null) continue;
      const validate = ajv.compile(schema);
      const value = schema.type === 'integer' ? Number(text) : text;
      expect([validate(value), validate.errors], `${where} ${name}: ${text}`).toEqual([true, null]);
    }
    for (const name of headers.keys()) {
      if (!OF_NO_CALL.has(name)) expect([...known.keys()], where).toContain(name);
    }
    const type = headers.get('content-type') as string;
    expect(Object.keys(response.content), where).toContain(type);
    const place = ['paths', path, method, 'responses', String(status), 'content', type, 'schema'];
    expect(mistakes(place, body), where).toBeNull();
    if (status >= 400) expect(Object.keys(response.content[type]?.examples ?? {}), where).toContain(body.code);
  }

  /** What is wrong with the body of a request. */
  const mistakesOfBody = ({ method, path }: Call, body: unknown) =>
    mistakes(['paths', path, method, 'requestBody', 'content', 'application/json', 'schema'], body);

  return { calls, found, checkAnswer, mistakesOfBody };
}
