// The calls as an OpenAPI 3.1 document, made from the objects that the router serves.
import { z } from 'zod';
import { createDocument, type ZodOpenApiPathsObject, type ZodOpenApiResponseObject } from 'zod-openapi';
import { type Problem, type ProblemCode, problems } from '../../shared/problems.ts';
import { problem } from '../calls/answers.ts';
import type { Call } from '../calls/call.ts';
import { calls } from '../calls/table.ts';
import { problemDocument } from '../http/problems.ts';

/** What any call can be answered, whatever it is. */
const ALWAYS: readonly ProblemCode[] = [
  'headers_too_large',
  'request_timeout',
  'misdirected',
  'unauthorized',
  'forbidden',
  'rate_limited',
  'invalid_request',
  'overloaded',
  'unavailable',
  'internal',
];
const WITH_BODY: readonly ProblemCode[] = ['payload_too_large', 'unsupported_media_type'];

const HEADERS: Partial<Record<number, z.ZodObject>> = {
  401: z.object({ 'WWW-Authenticate': z.string() }),
  403: z.object({ 'WWW-Authenticate': z.string().meta({ description: 'Names the scope that is needed.' }) }),
  429: z.object({
    'Retry-After': z
      .string()
      .optional()
      .meta({ description: 'Seconds. Without it the request alone is above the limit.' }),
    RateLimit: z.string().optional(),
    'RateLimit-Policy': z.string().optional(),
  }),
  503: z.object({ 'Retry-After': z.string().optional().meta({ description: 'Seconds; not with `outcome_unknown`.' }) }),
};

/** The refusals of a call, in the order in which they take precedence. */
function refusalsOf({ body, refusals }: Call): ProblemCode[] {
  const possible = new Set<ProblemCode>([...ALWAYS, ...(body ? WITH_BODY : []), ...refusals]);
  return (Object.keys(problems) as ProblemCode[]).filter((code) => possible.has(code));
}

function refusalResponses(call: Call): Record<string, ZodOpenApiResponseObject> {
  const responses: Record<string, ZodOpenApiResponseObject> = {};
  for (const [status, codes] of Map.groupBy(refusalsOf(call), (code) => problems[code].status)) {
    const headers = HEADERS[status];
    responses[String(status)] = {
      description: codes.map((code) => `\`${code}\`: ${(problems[code] as Problem).title}.`).join(' '),
      ...(headers && { headers }),
      content: {
        'application/problem+json': {
          schema: problem,
          examples: Object.fromEntries(codes.map((code) => [code, { value: problemDocument(code) }])),
        },
      },
    };
  }
  return responses;
}

function answerResponses({ answers }: Call): Record<string, ZodOpenApiResponseObject> {
  return Object.fromEntries(
    Object.entries(answers).map(([status, { description, schema, types, headers }]) => {
      const content = schema
        ? { 'application/json': { schema } }
        : Object.fromEntries((types ?? []).map((type) => [type, { schema: z.string() }]));
      return [status, { description, content, ...(headers && { headers }) }];
    }),
  );
}

/** A path as OpenAPI writes it. */
const templateOf = (path: string) => path.replace(/:(\w+)/g, '{$1}');

export function openApiDocument(version: string): object {
  const paths: ZodOpenApiPathsObject = {};
  for (const call of calls) {
    const { method, id, summary, description, scope, pathSchema, query, headers, body } = call;
    const path = templateOf(call.path);
    paths[path] = {
      ...paths[path],
      [method]: {
        operationId: id,
        summary,
        description: [description, `Scope \`${scope}\`.`].filter(Boolean).join(' '),
        security: [{ apiKey: [] }],
        requestParams: {
          ...(pathSchema && { path: pathSchema }),
          ...(query && { query }),
          ...(headers && { header: headers }),
        },
        ...(body && {
          requestBody: {
            required: true,
            content: { 'application/json': { schema: body.schema, examples: { example: { value: body.example } } } },
          },
        }),
        responses: { ...answerResponses(call), ...refusalResponses(call) },
      },
    };
  }
  return createDocument({
    openapi: '3.1.1',
    info: {
      title: 'highload-balance',
      version,
      summary: 'Credits and debits with the new balance in the answer, and their audit ledger.',
      license: { name: 'MIT', identifier: 'MIT' },
      description:
        'Amounts are whole minor units. Every accepted change raises the version of its account by 1, is published as an event ' +
        '(`/asyncapi.json`) and recorded in the ledger. Refusals are problem documents; decide by `code`. Where several apply, ' +
        'the first in the list of codes is the answer.',
    },
    servers: [{ url: '/' }],
    components: {
      securitySchemes: {
        apiKey: {
          type: 'http',
          scheme: 'bearer',
          description: 'An API key of the operator. Not asked for with `AUTH=off`.',
        },
      },
    },
    paths,
  });
}
