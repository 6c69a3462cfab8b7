// The form of a call: path, method, scope, schemas, answers, refusals and handler in one object. The router, the OpenAPI
// document and the tests read these objects, so what is documented is what runs.
import type { RequestHandler } from 'express';
import type { z } from 'zod';
import type { Scope } from '../../shared/api-key.ts';
import type { Pool } from '../../shared/database.ts';
import type { ProblemCode } from '../../shared/problems.ts';
import type { Access } from '../access/access.ts';
import type { ReadJsonBody } from '../http/json-body.ts';
import type { Lanes } from '../updates/lanes.ts';

export interface Call {
  /** As Express declares it, such as `/v1/accounts/:id`. */
  path: `/v1/${string}`;
  method: 'get' | 'post' | 'patch';
  id: string;
  summary: string;
  description?: string;
  /** What the key of a request needs: the router enforces it, the document names it. */
  scope: Scope;
  pathSchema?: z.ZodObject;
  query?: z.ZodObject;
  headers?: z.ZodObject;
  body?: { schema: z.ZodType; example: object };
  /** Answers that are not refusals, by status. */
  answers: Record<number, { description: string; schema?: z.ZodType; types?: string[]; headers?: z.ZodObject }>;
  /** Besides those that every call can give. Their meaning is in the catalogue and in docs/api.md. */
  refusals: readonly ProblemCode[];
  /** Called once for each application, before its first request. Checks a request with the schemas above. */
  handler(deps: CallDeps): RequestHandler;
}

/** What handlers work with. */
export interface CallDeps {
  pool: Pool;
  lanes: Lanes;
  access: Pick<Access, 'countMore' | 'isRevoked'>;
  /** One for all calls: it limits what their unfinished bodies hold together. */
  readJsonBody: ReadJsonBody;
  bodyBytesMax: number;
  bulkBodyBytesMax: number;
}
