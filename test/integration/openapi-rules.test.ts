// A foreign linter has nothing against the OpenAPI document but what is excused with a reason, in
// test/support/openapi/rules.ts.
import { beforeAll, expect, it } from 'vitest';
import { openApiDocument } from '../../src/api/reference/openapi.ts';
import { EXCUSES, lint } from '../support/openapi/rules.ts';
import { INSTALL_TIMEOUT_MS, installTools } from '../support/openapi/tools.ts';

beforeAll(installTools, INSTALL_TIMEOUT_MS);

it('breaks no rule of OpenAPI and OWASP that is not excused, and no excuse is idle', async () => {
  const { findings, used } = await lint(openApiDocument('1.0.0', 'required'));
  expect(findings).toEqual([]);
  expect([...used]).toEqual(expect.arrayContaining([...EXCUSES]));
});

it('is read: what lacks a bound, a format, a tag or a key is found', async () => {
  const { paths, ...rest } = openApiDocument('1.0.0', 'required') as { paths: Record<string, object> };
  const path = '/v1/balance-updates';
  const { tags, security, ...post } = (paths[path] as { post: Record<string, unknown> }).post;
  const properties = {
    text: { type: 'string', pattern: 'a' },
    list: { type: 'array', items: { type: 'boolean' } },
    number: { type: 'integer', minimum: 1, maximum: 2 },
  };
  const components = { ...(rest as { components?: object }).components, schemas: { AppliedUpdate: { properties } } };
  const one = { ...rest, paths: { [path]: { post } }, components };
  const rules = (await lint(one)).findings.map(({ rule }) => rule);
  for (const rule of ['string-limit', 'array-limit', 'integer-format'])
    expect(rules).toContain(`owasp:api4:2023-${rule}`);
  expect(rules).toEqual(expect.arrayContaining(['operation-tags', 'owasp:api2:2023-write-restricted']));
});
