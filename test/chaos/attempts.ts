// Sends operations and writes down what came of each attempt, as one client saw it.
import type { Actor, Tokens } from './accounts.ts';
import { type AnswerBody, atomicResultOf, resultOf } from './answers.ts';
import { type Attempt, type History, now, type Operation, type Result } from './history.ts';
import type { HttpClient, Reply } from './http.ts';
import { bulkItemOf, requestOf } from './requests.ts';

export interface Sender {
  history: History;
  http: HttpClient;
  tokens: Tokens;
}

export interface Api {
  name: string;
  port: number;
}

export interface AttemptOptions {
  timeoutMs?: number;
  /** Any number: which of the forms that mean the same is sent. */
  form?: number;
  isReuse?: boolean;
}

export function signedBy({ tokens }: Pick<Sender, 'tokens'>, actor: Actor): Record<string, string> {
  return { authorization: `Bearer ${tokens[actor]}` };
}

export async function attempt(
  sender: Sender,
  api: Api,
  operation: Operation,
  { timeoutMs, form, isReuse }: AttemptOptions = {},
): Promise<Attempt> {
  const { history, http } = sender;
  const { key, actor } = operation;
  const { method, path, body } = requestOf(operation, form);
  const startMs = now();
  const reply = await http.send(api.port, method, path, {
    body,
    headers: { ...signedBy(sender, actor), ...(key === null ? {} : { 'idempotency-key': key }) },
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  });
  const endMs = now();
  const result = reply.kind === 'answer' ? resultIn(history, operation, reply) : unanswered(reply);
  const made: Attempt = { operation, api: api.name, startMs, endMs, result, ...(isReuse ? { isReuse } : {}) };
  history.attempts.push(made);
  if ('hold' in result && result.hold) {
    const { accountId } = operation.legs[0];
    // A replay shows the hold as it was; only placing it shows it as it is.
    const isNow = result.kind === 'refused' || operation.kind === 'hold';
    if (isNow) history.holdReadings.push({ accountId, startMs, endMs, state: result.hold });
  }
  return made;
}

function resultIn(history: History, operation: Operation, reply: Extract<Reply, { kind: 'answer' }>): Result {
  const { status, headers } = reply;
  const body = { ...(reply.body as AnswerBody), replayed: headers['idempotent-replayed'] === 'true' };
  return operation.kind === 'atomic' && status === 200
    ? atomicResultOf(history, operation, body)
    : resultOf(history, operation, status, body);
}

let bulkRequests = 0;
const BULK = {
  update: { path: '/v1/balance-updates/bulk', name: 'updates' },
  transfer: { path: '/v1/transfers/bulk', name: 'transfers' },
} as const;

/** @param operations all updates or all transfers, of one actor: a request has one signature. */
export async function attemptBulk(
  sender: Sender,
  api: Api,
  operations: readonly Operation[],
  { timeoutMs, form }: Omit<AttemptOptions, 'isReuse'> = {},
): Promise<Attempt[]> {
  const { history, http } = sender;
  const [first] = operations;
  if (!first || operations.some(({ actor, kind }) => actor !== first.actor || kind !== first.kind))
    throw new Error('a bulk request has one actor, and one kind of operations');
  const { path, name } = BULK[first.kind as keyof typeof BULK];
  bulkRequests += 1;
  const request = bulkRequests;
  const startMs = now();
  const reply = await http.send(api.port, 'POST', path, {
    body: { [name]: operations.map((operation) => bulkItemOf(operation, form)) },
    headers: signedBy(sender, first.actor),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  });
  const endMs = now();
  const body = reply.kind === 'answer' ? (reply.body as AnswerBody) : {};
  if (reply.kind === 'answer' && reply.status === 200 && body.results?.length !== operations.length) {
    const what = `${body.results?.length} results for ${operations.length} ${name} of one bulk request`;
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
            ? resultOf(history, operation, Number(one.status), one)
            : { kind: 'unknown', why: 'no result in the answer' };
    return { operation, api: api.name, startMs, endMs, result, bulk: { request, place } };
  });
  history.attempts.push(...attempts);
  return attempts;
}

function unanswered(reply: Exclude<Reply, { kind: 'answer' }>): Result {
  return reply.kind === 'not sent'
    ? { kind: 'refused', code: 'connection refused' }
    : { kind: 'unknown', why: reply.why };
}
