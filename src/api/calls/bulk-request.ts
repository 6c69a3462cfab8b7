// Reads bulk requests: counted by their bytes before they are read, and read in pieces, so that
// neither a large nor an invalid one delays the others or costs less than the work it causes.
import type { Request, Response } from 'express';
import type { ListBody } from '../http/json-body.ts';
import type { Pause } from '../http/pieces.ts';
import type { Operation } from '../updates/operation.ts';
import type { CallDeps } from './call.ts';

/** 1,000 updates with the longest key and reference fit. */
const BODY_BYTES_MAX = 2_097_152;
/**
 * The rate limit counts this many bytes as one update. The longest updates have 3,000; to read them
 * takes as long as 2 short ones.
 */
const BYTES_PER_COUNT = 4096;
/** To submit the longest 1,000 operations takes up to 15 ms. */
const SUBMIT_AFTER_MS = 1;

/** @param make what the body asks for. @throws RequestProblem */
export async function readBulk(
  { readListBody, bulkTurns, access }: CallDeps,
  request: Request,
  response: Response,
  make: (body: ListBody, pause: Pause) => Promise<Operation[]>,
): Promise<Operation[]> {
  bulkTurns.check(response);
  let counted = 1;
  const countUpTo = async (count: number) => {
    await access.countMore(response, count - counted, counted);
    counted = Math.max(counted, count);
  };
  const onBytes = (bytes: number) => countUpTo(Math.ceil(bytes / BYTES_PER_COUNT));
  const inTurn = (bytes: number, read: () => Promise<Operation[]>) => bulkTurns.run(response, bytes, read);
  const makeAll = async (body: ListBody, pause: Pause) => {
    const made = await make(body, pause);
    await pause(SUBMIT_AFTER_MS); // all of them are submitted, and become one statement, in what is left of this turn
    return made;
  };
  const operations = await readListBody(request, BODY_BYTES_MAX, onBytes, inTurn, makeAll);
  await countUpTo(operations.reduce((sum, { kind, legs }) => sum + (kind === 'atomic' ? legs.length : 1), 0));
  return operations;
}
