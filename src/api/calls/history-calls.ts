// The calls that read the history of an account: its ledger entries, page by page and as a file, and past balances.
import { z } from 'zod';
import { holdId, moment, reference } from '../../shared/balance.ts';
import { CHANGE_TYPES } from '../../shared/contract.ts';
import type { Pool } from '../../shared/database.ts';
import { check, inQuery } from '../http/input.ts';
import { sendJson } from '../http/json-answer.ts';
import { RequestProblem, sendProblem } from '../http/problems.ts';
import { accountPath, found, idOf, inDatabase, PAGE_ROWS_MAX, pageLimit, wholeInQuery } from './account-request.ts';
import * as answers from './answers.ts';
import type { Call } from './call.ts';
import { entryBody, streamExport } from './entries-export.ts';
import {
  balanceAtTime,
  balanceAtVersion,
  type Entry,
  type EntryFilter,
  lastVersionBefore,
  readNewestFirst,
  readOldestFirst,
  readVersions,
} from './history-store.ts';
import { parseEventId } from './transfer-store.ts';

/** Each uses a connection for a part of the time, and there are four for all that is no update. */
const EXPORTS_MAX = 2;

/** A + in a query stands for a space. */
const momentInQuery = moment('must be a time such as 2026-11-23T19:43:56.550Z, its + written as %2B');

const transferId = z
  .string()
  .refine((id) => parseEventId(id) !== undefined, 'must be a transferId, such as alice:1:mwtowow0');

const filters = {
  /** Entries created at or after it. */
  from: momentInQuery.optional(),
  /** Entries created before it. */
  to: momentInQuery.optional(),
  direction: z.enum(['credit', 'debit'], 'must be credit or debit').optional(),
  type: z.enum(CHANGE_TYPES, `must be one of ${CHANGE_TYPES.join(', ')}`).optional(),
  reference: reference.optional(),
  transferId: transferId.optional(),
  holdId: holdId.optional(),
};

/** cursor is the nextCursor of the page before. */
const entriesQuery = z.strictObject({
  limit: pageLimit,
  cursor: wholeInQuery('must be the nextCursor of the page before', Number.MAX_SAFE_INTEGER).optional(),
  ...filters,
});

const exportQuery = z.strictObject({
  format: z.enum(['csv', 'jsonl'], 'must be csv or jsonl'),
  ...filters,
});

const balanceQuery = z
  .strictObject({
    at: momentInQuery.optional(),
    version: wholeInQuery(
      `must be a number from 0 to ${Number.MAX_SAFE_INTEGER}`,
      Number.MAX_SAFE_INTEGER,
      0,
    ).optional(),
  })
  .refine(({ at, version }) => (at === undefined) !== (version === undefined), 'needs either at or version');

type Period = { from?: Date | undefined; to?: Date | undefined };

/** The versions of an account that lie in a period, both ends as in a slice: from one up to below another. */
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
  summary: 'Read the ledger, newest first',
  scope: 'read',
  pathSchema: accountPath,
  query: entriesQuery,
  answers: { 200: { description: 'A page.', schema: answers.entriesPage } },
  refusals: ['account_not_found'],
  handler:
    ({ pool }) =>
    async (request, response) => {
      const id = idOf(request);
      const { limit, cursor, from, to, ...filter } = check(entriesQuery, request.query, inQuery);
      const { versions, slice } = await inDatabase(async () => {
        const versions = found(id, await readVersions(pool, id));
        const range = await rangeOf(pool, id, { from, to }, versions.ledgerVersion);
        const belowVersion = Math.min(cursor ?? Number.POSITIVE_INFINITY, range.belowVersion);
        if (belowVersion <= range.fromVersion) return { versions, slice: { entries: [], next: undefined } };
        return { versions, slice: await readNewestFirst(pool, id, { ...range, belowVersion, limit }, filter) };
      });
      sendJson(response, {
        accountId: id,
        ...versions,
        entries: slice.entries.map(entryBody),
        nextCursor: slice.next === undefined ? null : String(slice.next),
      });
    },
};

const balance: Call = {
  path: '/v1/accounts/:id/balance',
  method: 'get',
  id: 'readPastBalance',
  summary: 'What an account was worth at a time or a version',
  scope: 'read',
  pathSchema: accountPath,
  query: balanceQuery,
  answers: { 200: { description: 'After the last change up to then.', schema: answers.pastBalance } },
  refusals: ['account_not_found'],
  handler:
    ({ pool }) =>
    async (request, response) => {
      const id = idOf(request);
      const { at, version = 0 } = check(balanceQuery, request.query, inQuery);
      const past = found(
        id,
        await inDatabase<Awaited<ReturnType<typeof balanceAtTime | typeof balanceAtVersion>>>(() =>
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
  summary: 'The ledger as a file, oldest first',
  scope: 'read',
  pathSchema: accountPath,
  query: exportQuery,
  answers: {
    200: {
      description: 'Streamed. A transfer that breaks off is not complete.',
      types: ['text/csv; charset=utf-8; header=present', 'application/jsonl'],
      headers: z.object({ 'Content-Disposition': z.string() }),
    },
  },
  refusals: ['account_not_found'],
  handler({ pool, access }) {
    let exports = 0;
    return async (request, response) => {
      const id = idOf(request);
      const { format, from, to, ...filter } = check(exportQuery, request.query, inQuery);
      if (exports >= EXPORTS_MAX)
        return sendProblem(response, 'overloaded', { detail: 'Other exports are under way.' });
      exports += 1;
      try {
        // As far as the first piece there is still another answer.
        const { first, rest } = await inDatabase(async () => {
          const { ledgerVersion } = found(id, await readVersions(pool, id));
          const rest = slices(pool, id, await rangeOf(pool, id, { from, to }, ledgerVersion), filter);
          return { first: await rest.next(), rest };
        });
        const isAsked = request.method !== 'HEAD' && !first.done;
        const mayGoOn = async () => !(await access.isRevoked(response));
        await streamExport(response, format, id, mayGoOn, isAsked ? [first.value] : [], isAsked ? rest : []);
      } finally {
        exports -= 1;
      }
    };
  },
};

async function* slices(
  pool: Pool,
  id: string,
  { fromVersion, belowVersion }: { fromVersion: number; belowVersion: number },
  filter: EntryFilter,
): AsyncGenerator<readonly Entry[]> {
  for (let next: number | undefined = fromVersion; next !== undefined && next < belowVersion; ) {
    const range = { fromVersion: next, belowVersion, limit: PAGE_ROWS_MAX };
    const slice: Awaited<ReturnType<typeof readOldestFirst>> = await readOldestFirst(pool, id, range, filter);
    yield slice.entries;
    next = slice.next;
  }
}

export const historyCalls: readonly Call[] = [entries, exported, balance];

function invalidQuery(name: string, what: string): RequestProblem {
  return new RequestProblem('invalid_request', { errors: [{ where: `query ${name}`, what }] });
}
