// Clients that change balances in every way, each request under a key of its own, and that send a
// request again until they know what became of it: through restarts, failovers and moves.
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'vitest';
import { type Answer, onCleanUp, send, until } from './harness.ts';

/** Of each account at the start: more than the clients ever spend. */
const BALANCE = 1_000_000_000;
const RETRY_PAUSE_MS = 50;
/** So that a slow machine is not busy with nothing else. */
const PAUSE_MS = 10;

export interface Request {
  path: string;
  body: object;
  /** None where the path has its own. */
  key: string | undefined;
}

export interface Sent extends Request {
  /** The first that was not to be sent again. */
  answer: Answer;
  /** Ids of the changes that it says it made; a hold is one that is not named. */
  eventIds: string[];
}

/** Entries that these have in the ledger. */
export const entriesOf = (sent: readonly Sent[]) =>
  sent.reduce((sum, { eventIds }) => sum + Math.max(1, eventIds.length), 0);

/** Of openAccounts, for each account. */
export const ENTRIES_OF_OPENING = 2;

export interface Traffic {
  /** Answered with 200 or 201. */
  readonly done: readonly Sent[];
  /** Anything else that was not to be sent again. */
  readonly refused: readonly Sent[];
  /** Answers and failures after which a request was sent again, by code. */
  readonly again: ReadonlyMap<string, number>;
  /** Waits for more answers than there are now. */
  more(what: string, answers?: number): Promise<void>;
  /** Returns when every request in flight has its answer. Idempotent. */
  end(): Promise<void>;
}

export async function openAccounts(url: string, ids: readonly string[]): Promise<void> {
  for (const id of ids) {
    const opened = await untilAnswered(() => url, { path: '/v1/accounts', body: { id }, key: undefined });
    const credit = { path: '/v1/balance-updates', body: { accountId: id, amount: BALANCE }, key: `first-${id}` };
    const credited = await untilAnswered(() => url, credit);
    if (opened.status !== 201 || credited.status !== 200) throw new Error(`account ${id} not opened`);
  }
}

/**
 * @param url asked before each attempt. @param ids accounts that openAccounts opened.
 * @param isToBeLost whether the database will lose it: then nothing is reversed, since a request that
 * is sent again could not find the change.
 */
export function startTraffic(url: () => string, ids: readonly string[], clients = 4, isToBeLost = false): Traffic {
  const done: Sent[] = [];
  const refused: Sent[] = [];
  const again = new Map<string, number>();
  let isOver = false;
  const run = async (client: number) => {
    let reversible: string | undefined;
    for (let number = client; !isOver; number += 1) {
      for (const request of operation(number, ids, reversible)) {
        const answer = await untilAnswered(url, request, (why) => again.set(why, (again.get(why) ?? 0) + 1));
        const sent = { ...request, answer, eventIds: eventIdsIn(answer.body) };
        (answer.status === 200 || answer.status === 201 ? done : refused).push(sent);
        reversible = !isToBeLost && request.path === '/v1/balance-updates' ? sent.eventIds[0] : undefined;
      }
      await delay(PAUSE_MS);
    }
  };
  const running = Promise.all(Array.from({ length: clients }, (_, client) => run(client)));
  running.catch(() => {}); // end() reports it
  const end = async () => {
    isOver = true;
    await running;
  };
  onCleanUp(() => end().catch(() => {}));
  return {
    ...{ done, refused, again, end },
    async more(what, answers = 100) {
      const from = done.length;
      await until(`traffic goes on ${what}`, () => done.length >= from + answers || refused.length > 0);
    },
  };
}

/** Requests that follow each other. @param reversible the change that this client made before. */
function operation(number: number, ids: readonly string[], reversible: string | undefined): Request[] {
  const accountId = ids[number % ids.length] as string;
  const to = ids[(number + 1) % ids.length] as string;
  const key = randomUUID();
  const hold = `/v1/accounts/${accountId}/holds`;
  switch (number % 4) {
    case 0:
      return [{ path: '/v1/balance-updates', body: { accountId, amount: number % 8 === 0 ? 5 : -3 }, key }];
    case 1:
      if (reversible) return [{ path: '/v1/reversals', body: { of: reversible, amount: 1 }, key }];
      return [{ path: '/v1/balance-updates', body: { accountId, amount: 1 }, key }];
    case 2:
      return [{ path: '/v1/transfers', body: { from: accountId, to, amount: 2 }, key }];
    default:
      return [
        { path: hold, body: { holdId: key, amount: 7 }, key: undefined },
        { path: `${hold}/${key}/capture`, body: { amount: 4 }, key },
      ];
  }
}

/** @param onAgain called before the request is sent again, with the code of the answer or of the failure. */
export async function untilAnswered(
  url: () => string,
  { path, body, key }: Request,
  onAgain: (why: string) => void = () => {},
): Promise<Answer> {
  const headers = { connection: 'close', ...(key !== undefined && { 'idempotency-key': key }) };
  for (;;) {
    try {
      const answer = await send(url(), 'POST', path, body, headers);
      if (answer.status !== 503) return answer;
      onAgain(String(answer.body.code));
    } catch (error) {
      const { code, message } = (((error as Error).cause as Error) ?? error) as NodeJS.ErrnoException;
      onAgain(code ?? message);
    }
    await delay(RETRY_PAUSE_MS);
  }
}

/** Clients send again under the same keys what was answered: they get the same answers. */
export async function expectSameAnswers(url: string, sent: readonly Sent[]): Promise<void> {
  for (const { answer, ...request } of sent) {
    const again = await untilAnswered(() => url, request);
    if (request.key === undefined)
      expect(again).toMatchObject({ status: 200 }); // a hold, as it is now
    else expect([request, again.status, again.body]).toEqual([request, answer.status, answer.body]);
  }
}

// biome-ignore lint/suspicious/noExplicitAny: bodies of several calls
function eventIdsIn(body: any): string[] {
  return [body, ...(body?.legs ?? [])].flatMap(({ eventId }) => eventId ?? []);
}
