// Sends balance updates and writes down what came of each, as one client saw it.
import type { Actor, Tokens } from './accounts.ts';
import { type Attempt, DECLINES, type History, now, type Operation, type Result } from './history.ts';
import type { HttpClient } from './http.ts';

export interface Sender {
  history: History;
  http: HttpClient;
  tokens: Tokens;
}

export function signedBy({ tokens }: Pick<Sender, 'tokens'>, actor: Actor): Record<string, string> {
  return { authorization: `Bearer ${tokens[actor]}` };
}

/** The members that an answer may have; each is looked at before it is believed. */
interface AnswerBody {
  code?: string;
  accountId?: string;
  amount?: number;
  balance?: number;
  version?: number;
  eventId?: string;
  createdAt?: string;
  replayed?: boolean;
}

/** With these the service says that nothing was changed. */
const REFUSALS = new Set([
  'account_closed',
  'account_frozen',
  'account_not_found',
  'idempotency_key_reused',
  'overloaded',
  'rate_limited',
  'request_timeout',
  'unavailable',
]);

export async function attemptUpdate(
  sender: Sender,
  api: { name: string; port: number },
  operation: Operation,
  { timeoutMs, isReuse }: { timeoutMs?: number; isReuse?: boolean } = {},
): Promise<Attempt> {
  const { history, http } = sender;
  const { id: reference, accountId, amount, key, actor } = operation;
  const startMs = now();
  const reply = await http.send(api.port, 'POST', '/v1/balance-updates', {
    body: { accountId, amount, reference },
    headers: { ...signedBy(sender, actor), ...(key === null ? {} : { 'idempotency-key': key }) },
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  });
  const endMs = now();
  const result: Result =
    reply.kind === 'answer'
      ? resultOf(history, operation, reply.status, {
          ...(reply.body as AnswerBody),
          replayed: reply.headers['idempotent-replayed'] === 'true',
        })
      : unanswered(reply);
  const attempt: Attempt = { operation, api: api.name, startMs, endMs, result, ...(isReuse ? { isReuse } : {}) };
  history.attempts.push(attempt);
  return attempt;
}

let bulkRequests = 0;

/** @param operations of one actor: a request has one signature. */
export async function attemptBulk(
  sender: Sender,
  api: { name: string; port: number },
  operations: readonly Operation[],
  timeoutMs?: number,
): Promise<Attempt[]> {
  const { history, http } = sender;
  const [first] = operations;
  if (!first || operations.some(({ actor }) => actor !== first.actor)) throw new Error('a bulk request has one actor');
  const updates = operations.map(({ id: reference, accountId, amount, key }) => ({
    accountId,
    amount,
    reference,
    ...(key === null ? {} : { idempotencyKey: key }),
  }));
  bulkRequests += 1;
  const request = bulkRequests;
  const startMs = now();
  const headers = signedBy(sender, first.actor);
  const options = { body: { updates }, headers, ...(timeoutMs === undefined ? {} : { timeoutMs }) };
  const reply = await http.send(api.port, 'POST', '/v1/balance-updates/bulk', options);
  const endMs = now();
  const body =
    reply.kind === 'answer' ? (reply.body as AnswerBody & { results?: (AnswerBody & { status: number })[] }) : {};
  if (reply.kind === 'answer' && reply.status === 200 && body.results?.length !== operations.length) {
    const what = `${body.results?.length} results for ${operations.length} updates of one bulk request`;
    history.unexpected.push({ atMs: endMs, what });
  }
  const attempts = operations.map((operation, place): Attempt => {
    const one = body.results?.[place];
    const result: Result =
      reply.kind !== 'answer'
        ? unanswered(reply)
        : reply.status !== 200
          ? resultOf(history, operation, reply.status, body)
          : one
            ? resultOf(history, operation, one.status, one)
            : { kind: 'unknown', why: 'no result in the answer' };
    return { operation, api: api.name, startMs, endMs, result, bulk: { request, place } };
  });
  history.attempts.push(...attempts);
  return attempts;
}

function unanswered(reply: { kind: 'not sent' } | { kind: 'no answer'; why: string }): Result {
  return reply.kind === 'not sent'
    ? { kind: 'refused', code: 'connection refused' }
    : { kind: 'unknown', why: reply.why };
}

function resultOf(history: History, operation: Operation, status: number, body: AnswerBody): Result {
  const { code, balance, version, createdAt, replayed = false } = body;
  const unexpected = (): Result => {
    const what = `${operation.id} on ${operation.accountId}: ${status} ${JSON.stringify(body)}`;
    history.unexpected.push({ atMs: now(), what });
    return { kind: 'unknown', why: `unexpected: ${status} ${code}` };
  };
  if (status === 200) {
    const { accountId, amount } = operation;
    const epoch = epochIn(body.eventId);
    const isWhole =
      body.accountId === accountId &&
      body.amount === amount &&
      Number.isSafeInteger(balance) &&
      Number.isSafeInteger(version) &&
      Number.isSafeInteger(epoch) &&
      body.eventId === eventIdOf(accountId, Number(version), epoch) &&
      typeof createdAt === 'string';
    return isWhole ? ({ kind: 'applied', replayed, balance, version, epoch, createdAt } as Result) : unexpected();
  }
  if (status === 400 && DECLINES.some((decline) => decline === code)) {
    return body.accountId === operation.accountId
      ? ({ kind: 'declined', code, replayed, balance, version } as Result)
      : unexpected();
  }
  if (code === 'outcome_unknown' && status === 503) return { kind: 'unknown', why: code };
  return code !== undefined && REFUSALS.has(code) ? { kind: 'refused', code } : unexpected();
}

/** As docs/events.md describes it, in words of its own. */
export function eventIdOf(accountId: string, version: number, epoch: number): string {
  return `${accountId}:${version}:${epoch.toString(36)}`;
}

function epochIn(eventId = ''): number {
  return Number.parseInt(eventId.split(':').at(-1) ?? '', 36);
}
