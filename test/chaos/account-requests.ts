// Opens, reads and changes accounts, and writes down what came of each request, as one client saw it.
import type { Actor, WantedAccount } from './accounts.ts';
import { type Sender, signedBy } from './attempts.ts';
import { type AccountState, now, type PageReading, type PolicyChange, type Status } from './history.ts';
import type { Reply } from './http.ts';
import type { Random } from './random.ts';

interface Api {
  port: number;
}

/** Entries of a page. */
const PAGE_MAX = 40;

/** A change that nobody answered is in force by then or never: above every time limit of the service and every stall. */
const LATE_EFFECT_MS = 60_000;

/** @returns whether the account is known to be there. */
export async function openAccount(
  sender: Sender,
  api: Api,
  actor: Actor,
  accountId: string,
  wanted: WantedAccount,
): Promise<boolean> {
  const { history, http } = sender;
  const startMs = now();
  const body = { id: accountId, ...wanted };
  const reply = await http.send(api.port, 'POST', '/v1/accounts', { body, headers: signedBy(sender, actor) });
  const endMs = now();
  if (reply.kind === 'not sent') return false;
  const opening = { accountId, ...wanted, actor, startMs, endMs };
  if (reply.kind === 'no answer' || codeOf(reply) === 'unavailable') {
    history.openings.push({ ...opening, result: 'unknown' });
    return false;
  }
  if (codeOf(reply) === 'overloaded') return false; // nothing was changed
  const state = stateIn(reply, accountId);
  if (state && (reply.status === 200 || reply.status === 201)) {
    history.openings.push({ ...opening, result: reply.status === 201 ? 'opened' : 'present' });
    history.readings.push({ accountId, startMs, endMs, state });
    if (reply.status === 200 || (state.version === 0 && state.balance === 0)) return true;
  }
  history.unexpected.push({ atMs: endMs, what: `opening ${accountId}: ${JSON.stringify(reply)}` });
  return true;
}

/** @param mayBeMissing where the account is perhaps not open yet. */
export async function readAccount(
  sender: Sender,
  api: Api,
  actor: Actor,
  accountId: string,
  mayBeMissing = false,
): Promise<void> {
  const { history, http } = sender;
  const startMs = now();
  const reply = await http.send(api.port, 'GET', `/v1/accounts/${accountId}`, { headers: signedBy(sender, actor) });
  if (reply.kind !== 'answer' || reply.status === 503) return;
  const endMs = now();
  const state = stateIn(reply, accountId);
  if (state && reply.status === 200) history.readings.push({ accountId, startMs, endMs, state });
  else if (!(mayBeMissing && codeOf(reply) === 'account_not_found'))
    history.unexpected.push({ atMs: endMs, what: `reading ${accountId}: ${JSON.stringify(reply)}` });
}

/** One page, of any limit and from anywhere. */
export async function readPage(sender: Sender, api: Api, actor: Actor, accountId: string, random: Random) {
  const { history, http } = sender;
  const limit = random.between(1, PAGE_MAX);
  const cursor = random.chance(0.5) ? null : random.between(1, 3 * PAGE_MAX);
  const path = `/v1/accounts/${accountId}/entries?limit=${limit}${cursor === null ? '' : `&cursor=${cursor}`}`;
  const reply = await http.send(api.port, 'GET', path, { headers: signedBy(sender, actor) });
  if (reply.kind !== 'answer' || reply.status === 503) return;
  const endMs = now();
  const page = reply.body as Pick<PageReading, 'version' | 'ledgerVersion' | 'entries' | 'nextCursor'>;
  if (reply.status !== 200 || !Array.isArray(page.entries)) {
    history.unexpected.push({ atMs: endMs, what: `reading entries of ${accountId}: ${JSON.stringify(reply)}` });
    return;
  }
  const { version, ledgerVersion, nextCursor } = page;
  const entries = page.entries.map((entry) => ({
    version: entry.version,
    amount: entry.amount,
    balance: entry.balance,
  }));
  history.pages.push({ accountId, limit, cursor, endMs, version, ledgerVersion, entries, nextCursor });
}

export type WantedChange = Pick<PolicyChange, 'status' | 'overdraftLimit' | 'maxBalance'>;

/** With these nothing was changed. */
const POLICY_REFUSALS = ['overdraft_limit_too_low', 'account_not_empty'] as const;
type PolicyOutcome = 'in force' | 'try again' | (typeof POLICY_REFUSALS)[number];

/** @param change all that may be changed, as it will be: equal for the retries of one change, and for no other of the account. */
export async function changeAccount(
  sender: Sender,
  api: Api,
  actor: Actor,
  accountId: string,
  change: WantedChange,
): Promise<PolicyOutcome> {
  const { history, http } = sender;
  const startMs = now();
  const options = { body: change, headers: signedBy(sender, actor) };
  const reply = await http.send(api.port, 'PATCH', `/v1/accounts/${accountId}`, options);
  if (reply.kind === 'not sent') return 'try again';
  const endMs = now();
  const code = codeOf(reply);
  const refusal = POLICY_REFUSALS.find((one) => one === code);
  if (refusal) return refusal;
  if (code === 'overloaded') return 'try again'; // nothing was changed
  const state = stateIn(reply, accountId);
  const isCertain = reply.kind === 'answer' && reply.status === 200 && state !== undefined;
  if (isCertain) history.readings.push({ accountId, startMs, endMs, state });
  else if (reply.kind === 'answer' && code !== 'unavailable')
    history.unexpected.push({ atMs: endMs, what: `changing ${accountId}: ${JSON.stringify(reply)}` });
  history.policyChanges.push({
    ...{ accountId, actor, startMs, endMs: isCertain ? endMs : startMs + LATE_EFFECT_MS, isCertain },
    ...change,
  });
  return isCertain ? 'in force' : 'try again';
}

function codeOf(reply: Reply): string | undefined {
  return reply.kind === 'answer' ? (reply.body as { code?: string }).code : undefined;
}

/** Undefined unless it is that account, whole. */
function stateIn(reply: Reply, accountId: string): AccountState | undefined {
  if (reply.kind !== 'answer') return undefined;
  const body = reply.body as AccountState & { id: string; available: number; status: Status };
  const { asset, balance, held, version, overdraftLimit, maxBalance, status } = body;
  const isWhole =
    body.id === accountId &&
    [balance, held, version, overdraftLimit, body.available].every(Number.isSafeInteger) &&
    (maxBalance === null || Number.isSafeInteger(maxBalance)) &&
    typeof asset === 'string' &&
    body.available === balance + overdraftLimit - held;
  return isWhole ? { asset, balance, held, version, overdraftLimit, maxBalance, status } : undefined;
}
