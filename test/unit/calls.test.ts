// The table of calls holds together, and the OpenAPI document and docs/api.md describe the calls in it and no others.
import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { calls } from '../../src/api/calls/table.ts';
import { openApiDocument } from '../../src/api/reference/openapi.ts';
import { REMEMBERED } from '../../src/api/reference/responses.ts';

const withBraces = (path: string) => path.replace(/:(\w+)/g, '{$1}');

it('declares each id once, and each method of a path once', () => {
  const ids = calls.map(({ id }) => id);
  expect(ids).toEqual([...new Set(ids)]);
  const places = calls.map(({ method, path }) => `${method} ${path}`);
  expect(places).toEqual([...new Set(places)]);
});

it('tries the hot path first', () => {
  expect(calls[0]).toMatchObject({ method: 'post', path: '/v1/balance-updates' });
});

it.each(calls)('describes what $method $path takes', ({ path, method, pathSchema, body }) => {
  expect(Object.keys(pathSchema?.shape ?? {})).toEqual([...path.matchAll(/:(\w+)/g)].map(([, name]) => name));
  expect(body === undefined).toBe(method === 'get');
  for (const example of Object.values(body?.examples ?? {})) {
    expect(body?.schema.safeParse(example).error).toBeUndefined();
  }
});

it('is in the OpenAPI document, each call with the scope that it needs', () => {
  type Methods = Record<string, { operationId: string; description: string }>;
  const { paths } = openApiDocument('1.0.0', 'required') as { paths: Record<string, Methods> };
  const documented = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { operationId, description }]) => {
      const scope = /Scope `(\w+)`\.$/.exec(description)?.[1];
      return `${operationId}: ${method} ${path}, ${scope}`;
    }),
  );
  const declared = calls.map(({ id, method, path, scope }) => `${id}: ${method} ${withBraces(path)}, ${scope}`);
  expect(documented.sort()).toEqual(declared.sort());
});

it('is documented without keys and limits where the service asks for none', () => {
  const withKeys = JSON.stringify(openApiDocument('1.0.0', 'required'));
  const without = JSON.stringify(openApiDocument('1.0.0', 'off'));
  for (const word of [
    '"security"',
    '"securitySchemes"',
    '"401"',
    'WWW-Authenticate',
    '"429"',
    'RateLimit',
    'Scope `',
  ]) {
    expect(withKeys).toContain(word);
    expect(without).not.toContain(word);
  }
  expect(without).toContain('"421"');
  expect(withKeys).not.toContain('"421"');
});

it('names the refusals that are remembered as docs/api.md does', async () => {
  const docs = await readFile(new URL('../../docs/api.md', import.meta.url), 'utf8');
  const remembered = [...docs.matchAll(/^\| `(\w+)` \| \d{3} \|.*Remembered under the key/gm)].map(([, code]) => code);
  expect(remembered.sort()).toEqual([...REMEMBERED].sort());
});

it('is in docs/api.md', async () => {
  const docs = await readFile(new URL('../../docs/api.md', import.meta.url), 'utf8');
  const documented = [...docs.matchAll(/^`([A-Z]+ \/v1[^`?]*)/gm)].map(([, call]) => call);
  const declared = calls.map(({ method, path }) => `${method.toUpperCase()} ${withBraces(path)}`);
  expect(documented.sort()).toEqual(declared.sort());
});
