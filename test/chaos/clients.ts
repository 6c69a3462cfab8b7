// The clients of a run, each in an endless loop until told to stop: careful ones that repeat under a key until they know,
// careless ones that never repeat, bulk clients, readers, and those who change limits and freeze accounts.
import { setTimeout as delay } from 'node:timers/promises';
import { POLICY_ACCOUNTS, POLICY_LIMIT, pickAccount, pickAmount } from './accounts.ts';
import { type Attempt, type History, now, type Operation, type Result } from './history.ts';
import { createHttpClient, type HttpClient } from './http.ts';
import type { Random } from './random.ts';
import { attemptBulk, attemptUpdate } from './updates.ts';

export interface Target {
  name: string;
  port: number;
}

export interface ClientContext {
  history: History;
  random: Random;
  /** The API processes; a request goes to any of them. */
  targets: readonly Target[];
  /** Aborted when no new operation is to begin. */
  winding: AbortSignal;
  /** Aborted when even unsettled operations are given up. */
  over: AbortSignal;
}

interface Client extends ClientContext {
  name: string;
  http: HttpClient;
}

/** How many of each; several hundred requests a second on two cores. */
const CREW = { careful: 10, careless: 4, abandoning: 2, bulk: 3, reader: 2, newcomer: 1 };
/** Mean pause between the operations of one client. */
const PAUSE_MS = 25;
const RETRY_PAUSE_MAX_MS = 150;
/** Remembered by a client, to be sent again out of the blue. */
const SETTLED_MAX = 500;
const BULK_MAX = 60;
/** A change that nobody answered is in force by then or never: above every time limit of the service and every stall. */
const LATE_EFFECT_MS = 60_000;

/** Runs all clients; resolves when the last one has ended. @returns operations whose outcome nobody could find out in time */
export async function runClients(context: ClientContext): Promise<Operation[]> {
  const unsettled: Operation[] = [];
  const loops = Object.entries(CREW).flatMap(([kind, count]) =>
    Array.from({ length: count }, (_, number) => startClient(kind as keyof typeof CREW, number)),
  );
  const policies = POLICY_ACCOUNTS.map((accountId) =>
    withHttp(`policy of ${accountId}`, (client) => changePolicies(client, accountId)),
  );
  async function startClient(kind: keyof typeof CREW, number: number): Promise<void> {
    await withHttp(`${kind}-${number}`, (client) => {
      if (kind === 'careful') return beCareful(client, unsettled);
      if (kind === 'careless') return sendOnce(client, () => null);
      if (kind === 'abandoning') return sendOnce(client, (id) => id);
      if (kind === 'bulk') return sendBulk(client, unsettled);
      return kind === 'reader' ? read(client) : comeAnew(client, unsettled);
    });
  }
  async function withHttp(name: string, run: (client: Client) => Promise<void>): Promise<void> {
    const http = createHttpClient();
    try {
      await run({ ...context, name, http, random: context.random.fork(name) });
    } finally {
      http.close();
    }
  }
  await Promise.all([...loops, ...policies]);
  return unsettled;
}

const pause = ({ random, winding }: Client, meanMs = PAUSE_MS) =>
  delay(random() * 2 * meanMs, undefined, { signal: winding }).catch(() => {});
const retryPause = ({ random, over }: Client) =>
  delay(random() * RETRY_PAUSE_MAX_MS, undefined, { signal: over }).catch(() => {});

function operations({ name, random }: Client) {
  let made = 0;
  return (accountId = pickAccount(random), amount = pickAmount(random, accountId)): Operation => {
    made += 1;
    const id = `${name}/${made}`;
    return { id, accountId, amount, key: id };
  };
}

/** Nothing is left to find out. Any other refusal settles nothing: the next attempt may fare better. */
function isSettled(result: Result): boolean {
  return result.kind === 'applied' || result.kind === 'declined';
}

/** A frozen account is no place to wait. */
function isOver(result: Result): boolean {
  return isSettled(result) || (result.kind === 'refused' && result.code === 'account_frozen');
}

/** Some give up early, so that their repeat meets their first attempt in the service. */
const timeoutOf = (random: Random) => (random.chance(0.1) ? random.between(5, 300) : 8000);

async function settle(client: Client, operation: Operation): Promise<Attempt | undefined> {
  const { random, targets, over } = client;
  while (!over.aborted) {
    const attempt = await attemptUpdate(client, random.pick(targets), operation, { timeoutMs: timeoutOf(random) });
    if (isOver(attempt.result)) return attempt;
    await retryPause(client);
  }
  return undefined;
}

async function beCareful(client: Client, unsettled: Operation[]): Promise<void> {
  const { random, targets, winding } = client;
  const settled: Operation[] = [];
  const next = operations(client);
  while (!winding.aborted) {
    const operation = next();
    const copies = random.chance(0.1) ? random.between(2, 3) : 1;
    const all = await Promise.all(Array.from({ length: copies }, () => settle(client, operation)));
    if (all.every((attempt) => attempt === undefined)) unsettled.push(operation);
    else if (all.some((attempt) => attempt && isSettled(attempt.result))) {
      settled.push(operation);
      if (settled.length > SETTLED_MAX) settled.splice(random.between(0, SETTLED_MAX), 1);
    }
    if (settled.length > 0 && random.chance(0.15))
      await attemptUpdate(client, random.pick(targets), random.pick(settled));
    if (settled.length > 0 && random.chance(0.03)) {
      const { key, accountId, amount } = random.pick(settled);
      const other = { ...next(accountId, amount + 1 || 1), key };
      await attemptUpdate(client, random.pick(targets), other, { isReuse: true });
    }
    await pause(client);
  }
}

/** Without a key, or with one and without the patience to use it. */
async function sendOnce(client: Client, keyOf: (id: string) => string | null): Promise<void> {
  const { random, targets, winding } = client;
  const next = operations(client);
  while (!winding.aborted) {
    const operation = next();
    const options = { timeoutMs: timeoutOf(random) };
    await attemptUpdate(client, random.pick(targets), { ...operation, key: keyOf(operation.id) }, options);
    await pause(client);
  }
}

async function sendBulk(client: Client, unsettled: Operation[]): Promise<void> {
  const { random, targets, winding, over } = client;
  const next = operations(client);
  while (!winding.aborted) {
    const hasKeys = random.chance(0.7);
    let left = Array.from({ length: random.between(1, BULK_MAX) }, () => ({
      ...next(),
      ...(hasKeys ? {} : { key: null }),
    }));
    if (hasKeys && random.chance(0.2)) left.push(left[0] as Operation); // one key twice in a request
    for (;;) {
      const attempts = await attemptBulk(client, random.pick(targets), left, timeoutOf(random));
      if (!hasKeys) break;
      left = attempts.filter(({ result }) => !isOver(result)).map(({ operation }) => operation);
      if (left.length === 0) break;
      if (over.aborted) {
        unsettled.push(...left);
        break;
      }
      await retryPause(client);
    }
    await pause(client, 4 * PAUSE_MS);
  }
}

async function read(client: Client): Promise<void> {
  const { history, random, targets, http, winding } = client;
  while (!winding.aborted) {
    const accountId = pickAccount(random);
    const startMs = now();
    const reply = await http.send(random.pick(targets).port, 'GET', `/v1/accounts/${accountId}`);
    if (reply.kind === 'answer' && reply.status === 200) {
      const { balance, version } = reply.body as { balance: number; version: number };
      history.readings.push({ accountId, startMs, endMs: now(), balance, version });
    } else if (reply.kind === 'answer' && reply.status !== 503) {
      history.unexpected.push({ atMs: now(), what: `reading ${accountId}: ${JSON.stringify(reply.body)}` });
    }
    await pause(client);
  }
}

/** Creates accounts, and uses them at once. */
async function comeAnew(client: Client, unsettled: Operation[]): Promise<void> {
  const { random, winding, over } = client;
  const next = operations(client);
  for (let number = 0; !winding.aborted; number += 1) {
    const accountId = `${client.name}-account-${number}`;
    const overdraftLimit = random.between(0, 100);
    while (!(await createAccount(client, accountId, overdraftLimit))) {
      if (over.aborted) return;
      await retryPause(client);
    }
    for (let update = random.between(1, 3); update > 0; update -= 1) {
      const operation = next(accountId);
      if (!(await settle(client, operation))) unsettled.push(operation);
    }
    await pause(client, 8 * PAUSE_MS);
  }
}

/** @returns whether the account is known to be there */
export async function createAccount(
  { history, http, random, targets }: Pick<Client, 'history' | 'http' | 'random' | 'targets'>,
  id: string,
  overdraftLimit: number,
): Promise<boolean> {
  history.accounts.set(id, overdraftLimit);
  const reply = await http.send(random.pick(targets).port, 'POST', '/v1/accounts', { body: { id, overdraftLimit } });
  if (reply.kind !== 'answer' || reply.status === 503) return false;
  if (reply.status === 200 || reply.status === 201) return true;
  history.unexpected.push({ atMs: now(), what: `creating ${id}: ${JSON.stringify(reply.body)}` });
  return true;
}

/** Freezes, opens, raises and lowers, one change after the other, each repeated until it is known to be in force. */
async function changePolicies(client: Client, accountId: string): Promise<void> {
  const { random, winding, over } = client;
  let status: 'open' | 'frozen' = 'open';
  while (!winding.aborted || status === 'frozen') {
    status = status === 'open' && !winding.aborted && random.chance(0.5) ? 'frozen' : 'open';
    let change = { status, overdraftLimit: random.between(0, 1) * POLICY_LIMIT };
    for (;;) {
      const outcome = await changePolicy(client, accountId, change);
      if (outcome === 'in force' || over.aborted) break;
      if (outcome === 'too low') change = { ...change, overdraftLimit: POLICY_LIMIT };
      else await retryPause(client);
    }
    if (over.aborted) return;
    await pause(client, 30 * PAUSE_MS);
  }
}

async function changePolicy(
  { history, http, random, targets }: Client,
  accountId: string,
  change: { status: 'open' | 'frozen'; overdraftLimit: number },
): Promise<'in force' | 'too low' | 'try again'> {
  const startMs = now();
  const reply = await http.send(random.pick(targets).port, 'PATCH', `/v1/accounts/${accountId}`, { body: change });
  if (reply.kind === 'not sent') return 'try again';
  const code = reply.kind === 'answer' ? ((reply.body as { code?: string }).code ?? 'changed') : 'no answer';
  // With these, nothing was changed.
  if (code === 'overdraft_limit_too_low') return 'too low';
  if (code === 'overloaded') return 'try again';
  const isCertain = code === 'changed';
  if (!isCertain && code !== 'no answer' && code !== 'unavailable') {
    history.unexpected.push({ atMs: now(), what: `changing ${accountId}: ${JSON.stringify(reply)}` });
  }
  const endMs = isCertain ? now() : startMs + LATE_EFFECT_MS;
  history.policyChanges.push({ accountId, startMs, endMs, isCertain, ...change });
  return isCertain ? 'in force' : 'try again';
}
