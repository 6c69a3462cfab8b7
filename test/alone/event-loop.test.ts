// Nobody stops the event loop: whatever one client asks for, and however it sends it, others are
// served in between.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { HOT_ACCOUNT } from '../bench/accounts.ts';
import { type TurnRequest, turnRequests } from '../bench/turn-requests.ts';
import {
  type Answer,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  fillLedger,
  send,
  startApiHere,
  until,
} from '../support/harness.ts';
import {
  bytesOf,
  closed,
  JSON_TYPE,
  lockAccount,
  open,
  parseAnswers,
  post,
  waitingBackends,
} from '../support/http-client.ts';
import { watchTurns } from '../support/turns.ts';

/**
 * The target is 20, which `npm run bench:turns` measures in a process of its own. Here the client's work is in the same turns, and
 * virtual CPUs differ by a factor of two from minute to minute: this notices what stops the loop, by 100 to 1,800 ms without the bounds.
 */
const TURN_MS_MAX = 30;
/** What is compiled or collected in one, or taken from this machine by another, is not in all. */
const TRIES = 10;

let database: Database;
let url: string;

beforeAll(async () => {
  database = await createDatabase();
  ({ url } = await startApiHere(database, createBroker(), { RELAY: 'off' }));
  for (const id of [HOT_ACCOUNT, 'a1']) await send(url, 'POST', '/v1/accounts', { id, overdraftLimit: 1e12 });
  await fillLedger(database, HOT_ACCOUNT, 20_000, 'r'.repeat(255));
  await database.pool.query('UPDATE account SET version = 20000, balance = 20000 WHERE account_id = $1', [HOT_ACCOUNT]);
});
afterAll(cleanUp);

/** Sends the bytes, and waits until the server has closed the connection. */
async function turnsOf(...bytes: Buffer[]): Promise<{ longestMs: number; answers: Answer[] }> {
  const { socket, received } = open(url);
  const over = watchTurns();
  for (const some of bytes) socket.write(some);
  await closed(socket);
  return { longestMs: over(), answers: parseAnswers(received()) };
}

/** Tries until the longest turn of one is short. @returns that, or the shortest of all tries. */
async function shortest(attempt: (run: number) => Promise<{ longestMs: number }>): Promise<number> {
  let shortestMs = Number.POSITIVE_INFINITY;
  for (let run = 0; run < TRIES && shortestMs >= TURN_MS_MAX; run += 1) {
    shortestMs = Math.min(shortestMs, (await attempt(run)).longestMs);
  }
  return shortestMs;
}

it.each(turnRequests('names').map(({ what }) => what))('does not stop for %s', async (what) => {
  const attempt = async (run: number) => {
    const requests = turnRequests(`run-${run}`);
    const { method, path, body, headers = {}, status } = requests.find((one) => one.what === what) as TurnRequest;
    const all = [...Object.entries(headers), ...(body ? [JSON_TYPE] : [])] as [string, string][];
    const turns = await turnsOf(bytesOf({ method, path, headers: all, ...(body && { body }) }));
    expect(turns.answers.map((answer) => answer.status)).toEqual([status]);
    return turns;
  };
  expect(await shortest(attempt)).toBeLessThan(TURN_MS_MAX);
});

it('does not stop for a packet full of requests', async () => {
  const flood = Buffer.from('GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(20_000));
  const attempt = async () => {
    const turns = await turnsOf(flood);
    expect(turns.answers.length).toBeLessThan(1000); // as many as came before they were too many
    expect(turns.answers.at(-1)).toMatchObject({ status: 503, body: { code: 'overloaded' } });
    return turns;
  };
  expect(await shortest(attempt)).toBeLessThan(TURN_MS_MAX);
});

it.each([
  ['that is read', '/v1/balance-updates/bulk', 400, 'invalid_request'],
  ['that is refused', '/v1/nothing', 404, 'not_found'],
])('does not stop for a body %s in chunks of one byte', async (_, path, status, code) => {
  const body = JSON.stringify({ updates: Array.from({ length: 1000 }, () => ({ accountId: HOT_ACCOUNT, amount: 1 })) });
  const head = `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`;
  const chunks = [...body.repeat(5)].map((character) => `1\r\n${character}\r\n`).join('');
  const attempt = async () => {
    const turns = await turnsOf(Buffer.from(`${head}${chunks}0\r\n\r\n`));
    expect(turns.answers).toMatchObject([{ status, body: { code } }]);
    return turns;
  };
  expect(await shortest(attempt)).toBeLessThan(TURN_MS_MAX);
});

it('takes a body in small chunks that are no more than it needs', async () => {
  const body = JSON.stringify({ accountId: HOT_ACCOUNT, amount: 1 }).padEnd(1900);
  const head = `POST /v1/balance-updates HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`;
  const chunks = [...body].map((character) => `1\r\n${character}\r\n`).join('');
  const { answers } = await turnsOf(Buffer.from(`${head}${chunks}0\r\n\r\n`));
  expect(answers).toMatchObject([{ status: 200 }]);
});

it('answers what came before a body in chunks of one byte, and nothing else', async () => {
  const lock = await lockAccount(database, 'a1');
  const { socket, received } = open(url);
  const credit = post('/v1/balance-updates', { accountId: 'a1', amount: 1 }, ['Connection', 'keep-alive']);
  const head = `POST /v1/balance-updates HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n`;
  socket.write(bytesOf(credit));
  socket.write(`${head}${'1\r\nx\r\n'.repeat(10_000)}`);
  await until('it waits for the row', async () => (await waitingBackends(database)).length === 1);
  await lock.release();
  await closed(socket);
  expect(parseAnswers(received())).toMatchObject([{ status: 200, body: { accountId: 'a1' } }]);
});
