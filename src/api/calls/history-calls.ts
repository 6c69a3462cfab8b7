// The calls that read the history of an account: its ledger entries, page by page and as a file, and past balances.

import type { Response } from 'express';
import { holdId, moment, reference, version } from '../../shared/balance.ts';
import { CHANGE_TYPES } from '../../shared/contract.ts';
import type { Pool } from '../../shared/database.ts';
import { z } from '../../shared/zod.ts';
import { check, inQuery } from '../http/input.ts';
import { sendJson, sendJsonList } from '../http/json-answer.ts';
import { RequestProblem, sendProblem } from '../http/problems.ts';
import { Slots } from '../shares/slots.ts';
import {
  accountPath,
  found,
  idOf,
  inDatabase,
  numberCursor,
  PAGE_ROWS_MAX,
  pageLimit,
  wholeInQuery,
} from './account-request.ts';
import * as answers from './answers.ts';
import type { Call } from './call.ts';
import { entryBody, streamExport } from './entries-export.ts';
import { transferIdAsked } from './event-id.ts';
import {
  balanceAtTime,
  balanceAtVersion,
  type Entry,
  type EntryFilter,
  lastVersionBefore,
  readNewestFirst,
  readOldestFirst,
  readVersions,
  type Slice,
} from './history-store.ts';
import type { QueryLine } from './query-line.ts';

/** Each holds a page of entries at a time, about a megabyte. Their pages take turns with those of others. */
const EXPORTS_MAX = 32;
const EXPORTS_OF_CLIENT_MAX = 2;

/** A + in a query means a space. */
const momentInQuery = moment('must be a time such as 2026-11-23T19:43:56.550Z, its + written as %2B');

const filters = {
  from: momentInQuery.optional().meta({ description: 'Entries created at or after it.' }),
  to: momentInQuery.optional().meta({ description: 'Entries created before it.' }),
  direction: z.enum(['credit', 'debit'], 'must be credit or debit').optional(),
  type: z.enum(CHANGE_TYPES, `must be one of ${CHANGE_TYPES.join(', ')}`).optional(),
  reference: reference.optional().meta({ description: 'Entries with exactly this one.' }),
  transferId: transferIdAsked.optional().meta({ description: 'Entries of this transfer.' }),
  holdId: holdId.optional().meta({ description: 'Entries of this hold.' }),
};

const entriesQuery = z.strictObject({
  limit: pageLimit,
  cursor: numberCursor().meta({
    description: 'Only entries below this version: the `nextCursor` of the page before, or any version.',
  }),
  ...filters,
});

const exportQuery = z.strictObject({
  format: z.enum(['csv', 'jsonl'], 'must be csv or jsonl').meta({ example: 'csv' }),
  ...filters,
});

const balanceQuery = z
  .strictObject({
    at: momentInQuery.optional().meta({ description: 'A time; exclusive with `version`.' }),
    version: wholeInQuery(`must be a number from 0 to ${Number.MAX_SAFE_INTEGER}`, Number.MAX_SAFE_INTEGER, 0)
      .optional()
      .meta({ description: 'A version of the account; exclusive with `at`.', example: 0 }),
  })
  .refine(({ at, version }) => (at === undefined) !== (version === undefined), 'needs either at or version');

type Period = { from?: Date | undefined; to?: Date | undefined };

/**
 * The versions of an account within a half-open period: from the first up to, not including, the
 * end.
 */
async function rangeOf(pool: Pool, id: string, { from, to }: Period, ledgerVersion: number | null) {
  const last = ledgerVersion ?? -1;
  const before = (time: Date) => lastVersionBefore(pool, id, time, last);
  return {
    fromVersion: from ? (await before(from)) + 1 : 0,
    belowVersion: to ? (await before(to)) + 1 : last + 1,
  };
}

const entries: Call = {
  path: '/v1/accounts/:id/entries',
  method: 'get',
  id: 'readEntries',
  tag: 'History',
  summary: 'Read the ledger, newest first',
  scope: 'read',
  pathSchema: accountPath,
  query: entriesQuery,
  answers: { 200: { description: 'A page.', schema: answers.entriesPage } },
  refusals: ['account_not_found'],
  handler:
    ({ pages, pieces }) =>
    async (request, response) => {
      const id = idOf(request);
      const { limit, cursor, from, to, ...filter } = check(entriesQuery, request.query, inQuery);
      const { versions, slice } = await pages.query(response, async (pool) => {
        const versions = found(id, await readVersions(pool, id));
        const range = await rangeOf(pool, id, { from, to }, versions.ledgerVersion);
        const belowVersion = Math.min(cursor ?? Number.POSITIVE_INFINITY, range.belowVersion);
        if (belowVersion <= range.fromVersion) return { versions, slice: { entries: [], next: undefined } };
        return { versions, slice: await readNewestFirst(pool, id, { ...range, belowVersion, limit }, filter) };
      });
      const list = { items: slice.entries, bodyOf: entryBody };
      const nextCursor = slice.next === undefined ? null : String(slice.next);
      await sendJsonList(response, { accountId: id, ...versions }, 'entries', list, { nextCursor }, pieces);
    },
};

const balance: Call = {
  path: '/v1/accounts/:id/balance',
  method: 'get',
  id: 'readPastBalance',
  tag: 'History',
  summary: 'The balance of an account at a time or a version',
  scope: 'read',
  pathSchema: accountPath,
  query: balanceQuery,
  answers: { 200: { description: 'The balance after the last change up to then.', schema: answers.pastBalance } },
  refusals: ['account_not_found'],
  handler:
    ({ rows }) =>
    async (request, response) => {
      const id = idOf(request);
      const { at, version = 0 } = check(balanceQuery, request.query, inQuery);
      const past = found(
        id,
        await rows.query<Awaited<ReturnType<typeof balanceAtTime | typeof balanceAtVersion>>>(response, (pool) =>
          at ? balanceAtTime(pool, id, at) : balanceAtVersion(pool, id, version),
        ),
      );
      if (past === 'future') throw invalidQuery('at', 'is in the future');
      if ('lastVersion' in past) throw invalidQuery('version', `is above the account's, which is ${past.lastVersion}`);
      sendJson(response, { accountId: id, ...past });
    },
};

const exported: Call = {
  path: '/v1/accounts/:id/entries/export',
  method: 'get',
  id: 'exportEntries',
  tag: 'History',
  summary: 'The ledger as a file, oldest first',
  scope: 'read',
  pathSchema: accountPath,
  query: exportQuery,
  answers: {
    200: {
      description: 'Streamed. A download that breaks off is incomplete.',
      types: ['text/csv; charset=utf-8; header=present', 'application/jsonl'],
      headers: z.object({
        'Content-Disposition': z
          .string()
          .max(100)
          .regex(/^attachment; filename="[A-Za-z0-9._-]+\.(csv|jsonl)"$/),
        'Ledger-Version': version
          .optional()
          .meta({ description: 'The file is complete up to this version; absent while the ledger lacks the first.' }),
      }),
    },
  },
  refusals: ['account_not_found'],
  handler({ pages, pieces, access }) {
    const exports = new Slots(EXPORTS_MAX, EXPORTS_OF_CLIENT_MAX);
    return async (request, response) => {
      const id = idOf(request);
      const { format, from, to, ...filter } = check(exportQuery, request.query, inQuery);
      const leave = exports.take(access.clientOf(response));
      if (!leave) return sendProblem(response, 'overloaded', { detail: 'Other exports are running.' });
      try {
        // Up to the first piece, another answer is still possible.
        const { ledgerVersion, first, rest } = await inDatabase(async () => {
          const { ledgerVersion, range } = await pages.slice(response, async (pool) => {
            const { ledgerVersion } = found(id, await readVersions(pool, id));
            return { ledgerVersion, range: await rangeOf(pool, id, { from, to }, ledgerVersion) };
          });
          const rest = slices(pages, response, id, range, filter);
          return { ledgerVersion, first: await rest.next(), rest };
        });
        if (ledgerVersion !== null) response.setHeader('ledger-version', ledgerVersion);
        const isAsked = request.method !== 'HEAD' && !first.done;
        const mayGoOn = () => access.mayGoOn(response);
        await streamExport(response, format, id, mayGoOn, pieces, isAsked ? [first.value] : [], isAsked ? rest : []);
      } finally {
        leave();
      }
    };
  },
};

async function* slices(
  pages: QueryLine,
  response: Response,
  id: string,
  { fromVersion, belowVersion }: { fromVersion: number; belowVersion: number },
  filter: EntryFilter,
): AsyncGenerator<readonly Entry[]> {
  for (let next: number | undefined = fromVersion; next !== undefined && next < belowVersion; ) {
    const range = { fromVersion: next, belowVersion, limit: PAGE_ROWS_MAX };
    const slice: Slice = await pages.slice(response, (pool) => readOldestFirst(pool, id, range, filter));
    yield slice.entries;
    next = slice.next;
  }
}

export const historyCalls: readonly Call[] = [entries, exported, balance];

function invalidQuery(name: string, what: string): RequestProblem {
  return new RequestProblem('invalid_request', { errors: [{ where: `query ${name}`, what }] });
}
