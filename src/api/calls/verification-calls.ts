// The calls with which a client verifies the history of an account: its newest hash, and the check of the whole.
import type { PoolClient } from 'pg';
import { listChainSegments } from '../../shared/chain-head.ts';
import type { Pool } from '../../shared/database.ts';
import { countLegsElsewhere } from '../../shared/legs-elsewhere.ts';
import { verifyAccount } from '../../shared/verification.ts';
import { z } from '../../shared/zod.ts';
import { check, inQuery } from '../http/input.ts';
import { sendJson } from '../http/json-answer.ts';
import { DETAIL_CHARACTERS_MAX, line, RequestProblem, sendProblem } from '../http/problems.ts';
import { turnIn } from '../http/turn.ts';
import { Line } from '../shares/line.ts';
import { accountPath, found, idOf, numberCursor, pageLimit } from './account-request.ts';
import { findAccount, findChainHead } from './account-store.ts';
import * as answers from './answers.ts';
import type { Call } from './call.ts';

/**
 * So many take about a second, on one of the few connections for everything but updates: one at a
 * time.
 */
const VERIFIED_VERSIONS_MAX = 100_000;
/** Clients that wait for theirs, and how long. */
const WAITING_MAX = 20;
const WAIT_MAX_MS = 10_000;
/** And half a second for so many: each change may be a transfer of two legs, or 2,000 of them one of 100. */
const VERIFIED_LEGS_MAX = 200_000;

const chainHead: Call = {
  path: '/v1/accounts/:id/chain-head',
  method: 'get',
  id: 'readChainHead',
  tag: 'Verification',
  summary: 'The newest hash of the ledger',
  description: 'Keep it elsewhere: it later proves that no entry up to it was rewritten.',
  scope: 'read',
  pathSchema: accountPath,
  answers: { 200: { description: 'The head.', schema: answers.chainHead } },
  refusals: ['account_not_found'],
  handler:
    ({ rows }) =>
    async (request, response) => {
      const id = idOf(request);
      sendJson(response, found(id, await rows.query(response, (pool) => findChainHead(pool, id))));
    },
};

const segmentsQuery = z.strictObject({ limit: pageLimit, cursor: numberCursor(0) });

const chainSegments: Call = {
  path: '/v1/accounts/:id/chain-segments',
  method: 'get',
  id: 'readChainSegments',
  tag: 'Verification',
  summary: 'The hashes of the ledger, oldest first',
  description:
    'Each covers the entries of a few versions and the previous hash: everything needed to recompute the chain.',
  scope: 'read',
  pathSchema: accountPath,
  query: segmentsQuery,
  answers: { 200: { description: 'A page.', schema: answers.chainSegmentsPage } },
  refusals: ['account_not_found'],
  handler:
    ({ pages }) =>
    async (request, response) => {
      const id = idOf(request);
      const { limit, cursor = -1 } = check(segmentsQuery, request.query, inQuery);
      const segments = await pages.query(response, async (pool) => {
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
  tag: 'Verification',
  summary: 'Verify the history of an account',
  description:
    'In one snapshot, the check covers six things: ledger and outbox together have every version; the amounts add up to the balance; the entries match their hashes; each hold matches its entries; each transfer that the account pays has all of its legs; and no change is reversed by more than its amount. For accounts of up to 100,000 changes, whose transfers have up to 200,000 legs; one at a time for each client.',
  scope: 'read',
  pathSchema: accountPath,
  answers: { 200: { description: 'What was found.', schema: answers.accountVerification } },
  refusals: ['account_not_found'],
  handler({ rows, pages, access }) {
    const waiting = new Line<() => void>(WAITING_MAX);
    let verifying: string | undefined;
    return async (request, response) => {
      const id = idOf(request);
      const { version } = found(id, await rows.query(response, (pool) => findAccount(pool, id)));
      if (version > VERIFIED_VERSIONS_MAX) {
        throw tooMuch(`up to version ${VERIFIED_VERSIONS_MAX}, and this one is at ${version}`);
      }
      const client = access.clientOf(response);
      if (verifying === client || waiting.has(client)) {
        return sendProblem(response, 'overloaded', { detail: 'Another account is being verified.' });
      }
      if (verifying === undefined) verifying = client;
      else await turnIn(waiting, client, response, WAIT_MAX_MS);
      try {
        const legs = await pages.query(response, (pool) => countLegsElsewhere(pool, id, VERIFIED_LEGS_MAX + 1));
        if (legs > VERIFIED_LEGS_MAX) {
          throw tooMuch(`with up to ${VERIFIED_LEGS_MAX} legs of the transfers that it pays, and this one has more`);
        }
        const { problems, ...counts } = found(
          id,
          await pages.query(response, (pool) => withClient(pool, (connection) => verifyAccount(connection, id))),
        );
        const shown = problems
          .slice(0, answers.VERIFICATION_PROBLEMS_MAX)
          .map((one) => line(one, DETAIL_CHARACTERS_MAX));
        sendJson(response, { accountId: id, verified: problems.length === 0, problems: shown, ...counts });
      } finally {
        const next = waiting.next();
        verifying = next?.client;
        next?.work();
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

/**
 * The running statement reports a lost connection; without a listener, the error would also end the
 * process.
 */
function ignore(): void {}
