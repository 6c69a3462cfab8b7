// The calls as an OpenAPI 3.1 document, made from the objects that the router serves.
import { createDocument, type ZodOpenApiOperationObject, type ZodOpenApiPathsObject } from 'zod-openapi';
import { z } from '../../shared/zod.ts';
import { type Call, TAGS } from '../calls/call.ts';
import { calls } from '../calls/table.ts';
import { completeForm } from './forms.ts';
import { type Auth, requestId, responsesOf } from './responses.ts';

const requestIdOfRequest = z.object({
  'X-Request-Id': requestId.optional().meta({
    description:
      'Your id for the request: 1 to 128 of `A-Z a-z 0-9 . _ : = + / -`. Any other value is replaced, not refused.',
  }),
});

/** A path as OpenAPI writes it. */
const templateOf = (path: string) => path.replace(/:(\w+)/g, '{$1}');

function operationOf(call: Call, auth: Auth): ZodOpenApiOperationObject {
  const { id, tag, summary, description, scope, pathSchema, query, headers, body } = call;
  const examples = Object.entries(body?.examples ?? {}).map(([name, value]) => [name, { value }]);
  return {
    operationId: id,
    tags: [tag],
    summary,
    description: [description, auth === 'required' && `Scope \`${scope}\`.`].filter(Boolean).join(' ') || summary,
    ...(auth === 'required' && { security: [{ apiKey: [] }] }),
    requestParams: {
      ...(pathSchema && { path: pathSchema }),
      ...(query && { query }),
      header: requestIdOfRequest.extend(headers?.shape ?? {}),
    },
    ...(body && {
      requestBody: {
        required: true,
        content: { 'application/json': { schema: body.schema, examples: Object.fromEntries(examples) } },
      },
    }),
    responses: responsesOf(call, auth),
  };
}

const API_KEY = {
  type: 'http',
  scheme: 'bearer',
  description:
    'An API key issued by the operator. Each call names the scope it needs. A key may be bound to the accounts whose id begins with a prefix: ' +
    'all others are `forbidden`, whether or not they exist. A key may expire.',
} as const;

/** @param auth the AUTH setting of this service: with `off`, keys are not mentioned. */
export function openApiDocument(version: string, auth: Auth): object {
  const paths: ZodOpenApiPathsObject = {};
  for (const call of calls) {
    const path = templateOf(call.path);
    paths[path] = { ...paths[path], [call.method]: operationOf(call, auth) };
  }
  return createDocument(
    {
      openapi: '3.1.0',
      info: {
        title: 'highload-balance',
        version,
        summary: 'Credits and debits with the new balance in the answer, and their audit ledger.',
        contact: { name: 'The operator of this service' },
        license: { name: 'MIT', identifier: 'MIT' },
        description:
          'Amounts are whole minor units of 64 bits, up to 2^53 - 1. Every accepted change raises the version of its account by 1, is published as an event ' +
          '(`/asyncapi.json`) and recorded in the ledger. Refusals are problem documents; base decisions on `code`. If several apply, ' +
          'the first in the list of codes is returned.',
      },
      // Its clients are other services, not browsers.
      servers: [{ url: '/', 'x-internal': true }],
      tags: Object.entries(TAGS).map(([name, description]) => ({ name, description })),
      ...(auth === 'required' && { components: { securitySchemes: { apiKey: API_KEY } } }),
      paths,
    },
    { override: completeForm },
  );
}
