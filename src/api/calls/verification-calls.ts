// The calls with which a client verifies the history of an account: its newest hash, and the check of the whole.
import type { PoolClient } from 'pg';
import { z } from 'zod';
import { listChainSegments } from '../../shared/chain-head.ts';
import type { Pool } from '../../shared/database.ts';
import { countLegsElsewhere } from '../../shared/legs-elsewhere.ts';
import { verifyAccount } from '../../shared/verification.ts';
import { check, inQuery } from '../http/input.ts';
import { sendJson } from '../http/json-answer.ts';
import { RequestProblem, sendProblem } from '../http/problems.ts';
import { accountPath, found, idOf, inDatabase, pageLimit, wholeInQuery } from './account-request.ts';
import { findAccount, findChainHead } from './account-store.ts';
import * as answers from './answers.ts';
import type { Call } from './call.ts';

/** It takes about a second for so many, and a connection of the few that are for everything but updates: one at a time. */
const VERIFIED_VERSIONS_MAX = 100_000;
/** And half a second for so many: each change may be a transfer of two legs, or 2,000 of them one of 100. */
const VERIFIED_LEGS_MAX = 200_000;

const chainHead: Call = {
  path: '/v1/accounts/:id/chain-head',
  method: 'get',
  id: 'readChainHead',
  summary: 'The newest hash of the ledger',
  description: 'Kept elsewhere, it shows later that no entry up to it was rewritten.',
  scope: 'read',
  pathSchema: accountPath,
  answers: { 200: { description: 'The head.', schema: answers.chainHead } },
  refusals: ['account_not_found'],
  handler:
    ({ pool }) =>
    async (request, response) => {
      const id = idOf(request);
      sendJson(response, found(id, await inDatabase(() => findChainHead(pool, id))));
    },
};

/** cursor is the nextCursor of the page before. */
const segmentsQuery = z.strictObject({
  limit: pageLimit,
  cursor: wholeInQuery('must be the nextCursor of the page before', Number.MAX_SAFE_INTEGER, 0).optional(),
});

const chainSegments: Call = {
  path: '/v1/accounts/:id/chain-segments',
  method: 'get',
  id: 'readChainSegments',
  summary: 'The hashes of the ledger, oldest first',
  description: 'Each over the entries of a few versions and the hash before: what recomputing needs to know.',
  scope: 'read',
  pathSchema: accountPath,
  query: segmentsQuery,
  answers: { 200: { description: 'A page.', schema: answers.chainSegmentsPage } },
  refusals: ['account_not_found'],
  handler:
    ({ pool }) =>
    async (request, response) => {
      const id = idOf(request);
      const { limit, cursor = -1 } = check(segmentsQuery, request.query, inQuery);
      const segments = await inDatabase(async () => {
        const found = await listChainSegments(pool, id, cursor, limit);
        return found.length > 0 || (await findAccount(pool, id)) ? found : undefined;
      });
      const page = found(id, segments);
      const nextCursor = page.length === limit ? String(page.at(-1)?.lastVersion) : null;
      sendJson(response, { accountId: id, segments: page, nextCursor });
    },
};

const verification: Call = {
  path: '/v1/accounts/:id/verification',
  method: 'get',
  id: 'verifyAccount',
  summary: 'Prove that the history of an account holds together',
  description:
    'Versions without a gap, amounts that add up to the balance, entries that are those that were hashed, holds as their entries left them, whole transfers, and reversals within what they reverse: in one snapshot, of ledger and outbox. For accounts of up to 100,000 changes, whose transfers have up to 200,000 legs; one at a time.',
  scope: 'read',
  pathSchema: accountPath,
  answers: { 200: { description: 'What was found.', schema: answers.accountVerification } },
  refusals: ['account_not_found'],
  handler({ pool }) {
    let isVerifying = false;
    return async (request, response) => {
      const id = idOf(request);
      const { version } = found(id, await inDatabase(() => findAccount(pool, id)));
      if (version > VERIFIED_VERSIONS_MAX) {
        throw tooMuch(`up to version ${VERIFIED_VERSIONS_MAX}, and this one is at ${version}`);
      }
      if (isVerifying) return sendProblem(response, 'overloaded', { detail: 'Another account is being verified.' });
      isVerifying = true;
      try {
        const legs = await inDatabase(() => countLegsElsewhere(pool, id, VERIFIED_LEGS_MAX + 1));
        if (legs > VERIFIED_LEGS_MAX) {
          throw tooMuch(`with up to ${VERIFIED_LEGS_MAX} legs of the transfers that it pays, and this one has more`);
        }
        const { problems, ...counts } = found(
          id,
          await inDatabase(() => withClient(pool, (client) => verifyAccount(client, id))),
        );
        sendJson(response, { accountId: id, verified: problems.length === 0, problems, ...counts });
      } finally {
        isVerifying = false;
      }
    };
  },
};

export const verificationCalls: readonly Call[] = [chainHead, chainSegments, verification];

function tooMuch(what: string): RequestProblem {
  return new RequestProblem('invalid_request', { detail: `An account is verified here ${what}. Use npm run verify.` });
}

/** A connection of the pool for several statements. One that failed in between is not used again. */
async function withClient<T>(pool: Pool, work: (client: PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  client.on('error', ignore);
  let isUsable = false;
  try {
    const result = await work(client);
    isUsable = true;
    return result;
  } finally {
    client.off('error', ignore);
    client.release(!isUsable);
  }
}

/** That the connection is lost is told by the statement under way; without a listener it would end the process as well. */
function ignore(): void {}
