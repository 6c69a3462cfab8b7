// The clients of a run, each in an endless loop until told to stop: careful ones that retry under a key until they know,
// careless ones that never retry, bulk clients, readers, those who open and close accounts, and those who change limits.
import { setTimeout as delay } from 'node:timers/promises';
import { changeAccount, openAccount, readAccount, type WantedChange } from './account-requests.ts';
import {
  ACTORS,
  type Actor,
  POLICY_ACCOUNTS,
  POLICY_LIMITS,
  pickAccount,
  pickAmount,
  type Tokens,
  type WantedAccount,
} from './accounts.ts';
import type { Attempt, History, Operation, Result } from './history.ts';
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
  tokens: Tokens;
  /** The API processes; a request goes to any of them. */
  targets: readonly Target[];
  /** Aborted when no new operation is to begin. */
  winding: AbortSignal;
  /** Aborted when even unsettled operations are given up. */
  over: AbortSignal;
}

interface Client extends ClientContext {
  name: string;
  /** Whose API key it signs with. */
  actor: Actor;
  http: HttpClient;
}

/** How many of each; several hundred requests a second on two cores. */
const CREW = { careful: 10, careless: 4, abandoning: 2, bulk: 3, reader: 2, newcomer: 2 };
/** Mean pause between the operations of one client. */
const PAUSE_MS = 25;
const RETRY_PAUSE_MAX_MS = 150;
/** Remembered by a client, to be sent again out of the blue. */
const SETTLED_MAX = 500;
const BULK_MAX = 60;

/** Runs all clients; resolves when the last one has ended. @returns operations whose outcome nobody could find out in time */
export async function runClients(context: ClientContext): Promise<Operation[]> {
  const unsettled: Operation[] = [];
  const loops = Object.entries(CREW).flatMap(([kind, count]) =>
    Array.from({ length: count }, (_, number) => startClient(kind as keyof typeof CREW, number)),
  );
  const policies = POLICY_ACCOUNTS.map((accountId, number) =>
    withHttp(`policy of ${accountId}`, number, (client) => changePolicies(client, accountId)),
  );
  async function startClient(kind: keyof typeof CREW, number: number): Promise<void> {
    await withHttp(`${kind}-${number}`, number, (client) => {
      if (kind === 'careful') return beCareful(client, unsettled);
      if (kind === 'careless') return sendOnce(client, () => null);
      if (kind === 'abandoning') return sendOnce(client, (id) => id);
      if (kind === 'bulk') return sendBulk(client, unsettled);
      return kind === 'reader' ? read(client) : openAccounts(client, unsettled);
    });
  }
  async function withHttp(name: string, number: number, run: (client: Client) => Promise<void>): Promise<void> {
    const http = createHttpClient();
    const actor = ACTORS[number % ACTORS.length] as Actor;
    try {
      await run({ ...context, name, actor, http, random: context.random.fork(name) });
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

function operations({ name, actor, random }: Client) {
  let made = 0;
  return (accountId = pickAccount(random), amount = pickAmount(random, accountId)): Operation => {
    made += 1;
    const id = `${name}/${made}`;
    return { id, accountId, amount, key: id, actor };
  };
}

/** What the other actor may mean by the same key on the same account: an update of its own. */
function twinOf({ random }: Client, operation: Operation): Operation {
  const actor = ACTORS.find((one) => one !== operation.actor) as Actor;
  const amount = random.chance(0.5) ? operation.amount : pickAmount(random, operation.accountId);
  return { ...operation, id: `${operation.id}/twin`, amount, actor };
}

/** Nothing is left to find out. Any other refusal settles nothing: the next attempt may fare better. */
function isSettled(result: Result): boolean {
  return result.kind === 'applied' || result.kind === 'declined';
}

/** Nobody waits for a frozen account. For one that is not open yet, they do. */
function isOver(result: Result): boolean {
  return (
    isSettled(result) ||
    (result.kind === 'refused' && (result.code === 'account_frozen' || result.code === 'account_closed'))
  );
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

async function settleAll(client: Client, wanted: readonly Operation[], unsettled: Operation[]): Promise<void> {
  const settle1 = async (operation: Operation) => {
    if (!(await settle(client, operation))) unsettled.push(operation);
  };
  await Promise.all(wanted.map(settle1));
}

async function beCareful(client: Client, unsettled: Operation[]): Promise<void> {
  const { random, targets, winding } = client;
  const settled: Operation[] = [];
  const next = operations(client);
  while (!winding.aborted) {
    const operation = next();
    const copies = random.chance(0.1) ? random.between(2, 3) : 1;
    // At the same time, which can bring both into one batch, or after it.
    const twin = random.chance(0.06) ? twinOf(client, operation) : undefined;
    const isTogether = random.chance(0.5);
    const together = twin && isTogether ? settleAll(client, [twin], unsettled) : undefined;
    const all = await Promise.all(Array.from({ length: copies }, () => settle(client, operation)));
    await together;
    if (twin && !isTogether) await settleAll(client, [twin], unsettled);
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
  const { random, winding } = client;
  const next = operations(client);
  while (!winding.aborted) {
    const hasKeys = random.chance(0.7);
    const updates = Array.from({ length: random.between(1, BULK_MAX) }, () => ({
      ...next(),
      ...(hasKeys ? {} : { key: null }),
    }));
    if (hasKeys && random.chance(0.2)) updates.push(updates[0] as Operation); // one key twice in a request
    if (hasKeys) await settleBulk(client, updates, unsettled);
    else await attemptBulk(client, random.pick(client.targets), updates, timeoutOf(random));
    await pause(client, 4 * PAUSE_MS);
  }
}

async function settleBulk(client: Client, updates: readonly Operation[], unsettled: Operation[]): Promise<void> {
  const { random, targets, over } = client;
  for (let left = updates; left.length > 0; ) {
    const attempts = await attemptBulk(client, random.pick(targets), left, timeoutOf(random));
    left = attempts.filter(({ result }) => !isOver(result)).map(({ operation }) => operation);
    if (left.length === 0) return;
    if (over.aborted) {
      unsettled.push(...left);
      return;
    }
    await retryPause(client);
  }
}

async function read(client: Client): Promise<void> {
  const { random, targets, actor, winding } = client;
  while (!winding.aborted) {
    await readAccount(client, random.pick(targets), actor, pickAccount(random));
    await pause(client);
  }
}

/** Opens accounts, and updates each before, while and after it is opened; some are closed in the end. */
async function openAccounts(client: Client, unsettled: Operation[]): Promise<void> {
  const { name, random, winding, over, targets, actor } = client;
  const next = operations(client);
  for (let number = 0; !winding.aborted; number += 1) {
    const accountId = `${name}-account-${number}`;
    const wanted: WantedAccount = {
      asset: random.pick(['UNIT', 'USD/2']),
      overdraftLimit: random.between(0, 100),
      maxBalance: random.chance(0.3) ? random.between(0, 60) : null,
    };
    const early = next(accountId);
    await attemptUpdate(client, random.pick(targets), early);
    await readAccount(client, random.pick(targets), actor, accountId, true);
    const meanwhile = [early, ...Array.from({ length: random.between(1, 3) }, () => next(accountId))];
    // With updates of other accounts, so that their batch may be waiting for a lock when the account appears.
    const inBulk = [next(), next(accountId), next(), next(accountId)];
    const settled = [settleAll(client, meanwhile, unsettled), settleBulk(client, inBulk, unsettled)];
    const isOpen = await untilOpen(client, accountId, wanted);
    await Promise.all(settled);
    if (!isOpen) return;
    await settleAll(client, [next(accountId)], unsettled);
    if (random.chance(0.3)) await close(client, accountId, wanted, next);
    if (over.aborted) return;
    await pause(client, 8 * PAUSE_MS);
  }
}

/** Through both API processes at once: one of them opens it. @returns whether it is known to be open. */
async function untilOpen(client: Client, accountId: string, wanted: WantedAccount): Promise<boolean> {
  const { random, over, targets, actor } = client;
  await pause(client);
  for (;;) {
    const requests = random.chance(0.3) ? targets : [random.pick(targets)];
    const opened = await Promise.all(requests.map((api) => openAccount(client, api, actor, accountId, wanted)));
    if (opened.some(Boolean)) return true;
    if (over.aborted) return false;
    await retryPause(client);
  }
}

/** Takes out what is in it, closes it, and updates it once more. Where a balance is left, the service refuses to close it. */
async function close(
  client: Client,
  accountId: string,
  { overdraftLimit, maxBalance }: WantedAccount,
  next: (accountId: string, amount?: number) => Operation,
): Promise<void> {
  const { history, random, targets, actor, over } = client;
  const balance = history.readings.findLast((reading) => reading.accountId === accountId)?.state.balance ?? 0;
  const last = history.attempts.findLast((attempt) => attempt.operation.accountId === accountId)?.result;
  const rest = last && 'balance' in last ? last.balance : balance;
  if (rest !== 0 && !(await settle(client, next(accountId, -rest)))) return;
  const closed: WantedChange = { status: 'closed', overdraftLimit, maxBalance };
  for (;;) {
    const outcome = await changeAccount(client, random.pick(targets), actor, accountId, closed);
    if (outcome !== 'try again') break;
    if (over.aborted) return;
    await retryPause(client);
  }
  await attemptUpdate(client, random.pick(targets), next(accountId));
}

/** Freezes, opens, raises and lowers, one change after the other, each retried until it is known to be in force. */
async function changePolicies(client: Client, accountId: string): Promise<void> {
  const { random, winding, over, actor, targets } = client;
  let status: 'open' | 'frozen' = 'open';
  for (let number = 0; !winding.aborted || status === 'frozen'; number += 1) {
    status = status === 'open' && !winding.aborted && random.chance(0.5) ? 'frozen' : 'open';
    // The number makes it unlike every other change of the account, so that its entry is known by its limits.
    let change: WantedChange = {
      status,
      overdraftLimit: random.pick(POLICY_LIMITS.overdraftLimit) + (number % 20),
      maxBalance: random.pick(POLICY_LIMITS.maxBalance) + Math.floor(number / 20),
    };
    for (;;) {
      const outcome = await changeAccount(client, random.pick(targets), actor, accountId, change);
      if (outcome === 'in force' || over.aborted) break;
      if (outcome === 'try again') await retryPause(client);
      else change = { ...change, overdraftLimit: POLICY_LIMITS.overdraftLimit[1] + (number % 20) };
    }
    if (over.aborted) return;
    await pause(client, 30 * PAUSE_MS);
  }
}
