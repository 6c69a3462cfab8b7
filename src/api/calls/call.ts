// The form of a call: path, method, scope, schemas, answers, refusals and handler in one object. The router, the OpenAPI
// document and the tests read these objects, so what is documented is what runs.
import type { RequestHandler } from 'express';
import type { Scope } from '../../shared/api-key.ts';
import type { ProblemCode } from '../../shared/problems.ts';
import type { z } from '../../shared/zod.ts';
import type { Access } from '../access/access.ts';
import type { BodyReader } from '../http/json-body.ts';
import type { Pieces } from '../http/pieces.ts';
import type { AnswersMemory } from '../updates/answers-memory.ts';
import type { Lanes } from '../updates/lanes.ts';
import type { BulkTurns } from './bulk-turns.ts';
import type { QueryLine } from './query-line.ts';

/** Under which headings the calls are shown, and what a generated client groups them by. */
export const TAGS = {
  Accounts: 'Opening, reading and changing accounts.',
  'Balance updates': 'Credits and debits, one or many.',
  Transfers: 'Money between accounts, all legs or none.',
  Reversals: 'Undoing a change, whole or in part.',
  Holds: 'Money set aside, then captured, released or left to expire.',
  History: 'The ledger, and past balances.',
  Verification: 'Proof that a history is consistent, and hashes to keep elsewhere.',
} as const;
export type Tag = keyof typeof TAGS;

export interface Call {
  /** As Express declares it, such as `/v1/accounts/:id`. */
  path: `/v1/${string}`;
  method: 'get' | 'post' | 'patch';
  id: string;
  tag: Tag;
  summary: string;
  description?: string;
  /** What the key of a request needs: the router enforces it, the document names it. */
  scope: Scope;
  pathSchema?: z.ZodObject;
  query?: z.ZodObject;
  headers?: z.ZodObject;
  /** Every example works when sent as it is, in the order of the document, and can be retried. */
  body?: { schema: z.ZodType; examples: Record<string, object> };
  /** Answers that are not refusals, by status. */
  answers: Record<number, { description: string; schema?: z.ZodType; types?: string[]; headers?: z.ZodObject }>;
  /** The first answer is kept under the idempotency key; a replayed answer says so. */
  isReplayed?: boolean;
  /** Besides those that every call can give. Their meaning is in the catalogue and in docs/api.md. */
  refusals: readonly ProblemCode[];
  /** Called once for each application, before its first request. Checks a request with the schemas above. */
  handler(deps: CallDeps): RequestHandler;
}

/** What handlers work with. */
export interface CallDeps extends BodyReader {
  /** For reads of a few rows, found by key. */
  rows: QueryLine;
  /** For pages of rows and what takes as long. */
  pages: QueryLine;
  /** For what operators open and change, which does not wait for what others read. */
  changes: QueryLine;
  lanes: Lanes;
  /** Whose bulk request is next. */
  bulkTurns: BulkTurns;
  /** Receives each change that did not go through a lane. */
  answers: Pick<AnswersMemory, 'note'>;
  access: Pick<Access, 'clientOf' | 'countMore' | 'mayGoOn'>;
  pieces: Pieces;
  bodyBytesMax: number;
}
