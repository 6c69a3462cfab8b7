// The possible answers of a call, in OpenAPI terms: by status, with the codes of the refusals and
// their headers.
import type { ZodOpenApiResponseObject } from 'zod-openapi';
import { type ApiSettings, RATE_LIMIT_WINDOW_S_MAX } from '../../shared/config.ts';
import { type Problem, type ProblemCode, problems } from '../../shared/problems.ts';
import { z } from '../../shared/zod.ts';
import { problem } from '../calls/answers.ts';
import type { Call } from '../calls/call.ts';
import { problemDocument } from '../http/problems.ts';

export type Auth = ApiSettings['auth'];

/** The refusals that any call can give. */
const ALWAYS: readonly ProblemCode[] = [
  ...(['headers_too_large', 'request_timeout', 'invalid_request', 'overloaded', 'unavailable', 'internal'] as const),
];
const BY_AUTH: Record<Auth, readonly ProblemCode[]> = {
  required: ['unauthorized', 'forbidden', 'rate_limited'],
  off: ['misdirected', 'cross_origin'],
};
/** Where the path is not correctly percent-encoded. */
const WITH_PATH: readonly ProblemCode[] = ['not_found'];
const WITH_BODY: readonly ProblemCode[] = ['payload_too_large', 'unsupported_media_type'];

/** The refusals that are remembered under an idempotency key, and replayed. */
export const REMEMBERED: ReadonlySet<ProblemCode> = new Set([
  ...(['version_mismatch', 'hold_amount_exceeded', 'reversal_exceeds'] as const),
  ...(['balance_out_of_range', 'max_balance_exceeded', 'insufficient_funds', 'linked_failed'] as const),
]);

/** Refused before the request is counted for a key, so without rate-limit headers. */
export const UNCOUNTED: ReadonlySet<number> = new Set([401, 403, 408, 421, 431]);

const rateLimit = z
  .string()
  .max(100)
  .regex(/^"key";r=[0-9]+;t=[0-9]+$/)
  .meta({
    description: '`r`: how much the key may still send. `t`: seconds until its full limit is available again.',
    example: '"key";r=850;t=7',
  });
const rateLimitPolicy = z
  .string()
  .max(100)
  .regex(/^"key";q=[0-9]+;w=[0-9]+$/)
  .meta({ description: 'The limit of the key: `q` in `w` seconds.', example: '"key";q=1000;w=10' });
/** For a key that has a limit. */
const maybeRateLimit = rateLimit.optional().meta({ header: { id: 'RateLimit' } });
const maybeRateLimitPolicy = rateLimitPolicy.optional().meta({ header: { id: 'RateLimit-Policy' } });
const maybeReplayed = z
  .literal('true')
  .optional()
  .meta({ description: 'The first answer to this key, replayed.', header: { id: 'Idempotent-Replayed' } });
const retryAfter = z.int().min(1).max(RATE_LIMIT_WINDOW_S_MAX);
const challenge = z
  .string()
  .max(200)
  .regex(/^Bearer realm="highload-balance"[\x20-\x7e]*$/);

export const requestId = z
  .string()
  .min(1)
  .max(128)
  .regex(/^[A-Za-z0-9._:=+/-]+$/);
const answeredRequestId = requestId.meta({
  description: 'The id of the request, or a new one. The log of the service contains it too.',
  header: { id: 'X-Request-Id' },
});

function headersOf(call: Call, status: number, codes: readonly ProblemCode[], auth: Auth): z.ZodRawShape {
  const isCounted = auth === 'required' && !UNCOUNTED.has(status);
  const canBeReplayed = call.isReplayed && (status < 400 || codes.some((code) => REMEMBERED.has(code)));
  return {
    'X-Request-Id': answeredRequestId,
    ...call.answers[status]?.headers?.shape,
    ...(isCounted && { RateLimit: status === 429 ? rateLimit : maybeRateLimit }),
    ...(isCounted && { 'RateLimit-Policy': status === 429 ? rateLimitPolicy : maybeRateLimitPolicy }),
    ...(canBeReplayed && { 'Idempotent-Replayed': maybeReplayed }),
    ...(status === 401 && { 'WWW-Authenticate': challenge }),
    ...(status === 403 &&
      auth === 'required' && {
        'WWW-Authenticate': challenge.optional().meta({ description: 'Names the required scope if the key lacks it.' }),
      }),
    ...(status === 429 && {
      'Retry-After': retryAfter
        .optional()
        .meta({ description: 'Seconds. Absent if the request by itself exceeds the limit.' }),
    }),
    ...(status === 503 && { 'Retry-After': retryAfterOf(codes) }),
  };
}

function retryAfterOf(codes: readonly ProblemCode[]) {
  const isAlways = codes.every((code) => (problems[code] as Problem).retryAfterS !== undefined);
  return isAlways
    ? retryAfter.meta({ description: 'Seconds.' })
    : retryAfter.optional().meta({ description: 'Seconds; not with `outcome_unknown`.' });
}

/** The refusals of a call, in the order in which they take precedence. */
function refusalsOf({ pathSchema, body, refusals }: Call, auth: Auth): ProblemCode[] {
  const possible = new Set<ProblemCode>([
    ...[...ALWAYS, ...BY_AUTH[auth], ...(pathSchema ? WITH_PATH : []), ...(body ? WITH_BODY : []), ...refusals],
  ]);
  return (Object.keys(problems) as ProblemCode[]).filter((code) => possible.has(code));
}

export function responsesOf(call: Call, auth: Auth): Record<string, ZodOpenApiResponseObject> {
  const responses: Record<string, ZodOpenApiResponseObject> = {};
  const add = (status: number, codes: readonly ProblemCode[], response: ZodOpenApiResponseObject) => {
    const headers = headersOf(call, status, codes, auth);
    responses[String(status)] = { ...response, ...(Object.keys(headers).length > 0 && { headers: z.object(headers) }) };
  };
  for (const [status, { description, schema, types }] of Object.entries(call.answers)) {
    const content = schema
      ? { 'application/json': { schema } }
      : // Streamed: as long as the history is.
        Object.fromEntries((types ?? []).map((type) => [type, { schema: { type: 'string' as const } }]));
    add(Number(status), [], { description, content });
  }
  for (const [status, codes] of Map.groupBy(refusalsOf(call, auth), (code) => problems[code].status)) {
    const description = codes.map((code) => `\`${code}\`: ${problems[code].title}.`).join(' ');
    const examples = Object.fromEntries(codes.map((code) => [code, { value: problemDocument(code) }]));
    add(status, codes, { description, content: { 'application/problem+json': { schema: problem, examples } } });
  }
  return responses;
}
