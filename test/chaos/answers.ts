// Reads answers about operations. Nothing in an answer is believed before it is looked at: what no API of ours may say is
// written down, and counts as no answer.
import {
  type Applied,
  DECLINES,
  type History,
  type HoldState,
  type LegAnswer,
  now,
  type Operation,
  type Result,
} from './history.ts';

/** The members that an answer may have. */
export interface AnswerBody {
  code?: string;
  status?: number | string;
  accountId?: string;
  amount?: number;
  balance?: number;
  version?: number;
  eventId?: string;
  createdAt?: string;
  replayed?: boolean;
  transferId?: string;
  reverses?: string;
  legs?: AnswerBody[];
  to?: AnswerBody;
  hold?: AnswerBody;
  holdId?: string;
  results?: AnswerBody[];
}

/** With these the service says that nothing was changed. */
const REFUSALS = new Set([
  ...[
    'account_closed',
    'account_frozen',
    'account_not_found',
    'already_reversed',
    'asset_mismatch',
    'change_not_found',
  ],
  ...['hold_closed', 'hold_exists', 'hold_expired', 'hold_not_found', 'idempotency_key_reused', 'not_reversible'],
  ...['overloaded', 'rate_limited', 'request_timeout', 'unavailable'],
]);

export function resultOf(history: History, operation: Operation, status: number, body: AnswerBody): Result {
  const { code, balance, version, replayed = false } = body;
  const unexpected = (): Result => {
    const what = `${operation.kind} ${operation.id} on ${operation.legs[0].accountId}: ${status} ${JSON.stringify(body)}`;
    history.unexpected.push({ atMs: now(), what });
    return { kind: 'unknown', why: `unexpected: ${status} ${code}` };
  };
  if (status === 200 || status === 201) return appliedIn(operation, status, body) ?? unexpected();
  const decline = DECLINES.find((one) => one === code);
  if (decline) {
    const accountId = operation.legs.find((leg) => leg.accountId === body.accountId)?.accountId;
    if (accountId === undefined || !Number.isSafeInteger(balance) || !Number.isSafeInteger(version))
      return unexpected();
    // Whether a hold could be placed is decided again with each request: the hold itself is what is remembered.
    if (operation.kind === 'hold') return { kind: 'refused', code: decline };
    return { kind: 'declined', code: decline, replayed, accountId, balance, version } as Result;
  }
  if (code === 'outcome_unknown' && status === 503) return { kind: 'unknown', why: code };
  if (code === undefined || !REFUSALS.has(code)) return unexpected();
  if (code !== 'hold_closed' && code !== 'hold_expired') return { kind: 'refused', code };
  const hold = holdIn(operation, body.hold);
  return hold ? { kind: 'refused', code, hold } : unexpected();
}

/** The one result of an atomic bulk request: all took effect, or the one that failed says why. */
export function atomicResultOf(history: History, operation: Operation, body: AnswerBody): Result {
  const results = body.results ?? [];
  const failed = results.find(({ status, code }) => status !== 200 && code !== 'linked_failed');
  const isWhole =
    results.length === operation.legs.length &&
    (failed ? results.every(({ status }) => status !== 200) : results.every(({ status }) => status === 200));
  if (isWhole && failed) return resultOf(history, operation, Number(failed.status), failed);
  return resultOf(history, operation, isWhole ? 200 : 0, body);
}

function appliedIn(operation: Operation, status: number, body: AnswerBody): Applied | undefined {
  const { kind, legs: wanted, reverses } = operation;
  const { replayed = false, createdAt, transferId = null } = body;
  const applied = { kind: 'applied', replayed, transferId, hold: null, legs: [] } as const;
  if (kind === 'hold') {
    const hold = holdIn(operation, body);
    // Its answer is no replay of the first one: it shows the hold as it is now.
    return hold && { ...applied, replayed: status === 200, createdAt: hold.createdAt, hold };
  }
  const shown = kind === 'atomic' ? body.results : (body.legs ?? [body, ...(body.to ? [body.to] : [])]);
  const legs = (shown ?? []).flatMap((leg) => legIn(leg) ?? []);
  const ids = new Map(legs.map((leg) => [leg.accountId, leg]));
  const times = kind === 'atomic' ? (shown ?? []).map((one) => String(one.createdAt)).sort() : [createdAt];
  const isTransfer = kind !== 'atomic' && wanted.length > 1;
  const [payer] = legs.filter(({ amount }) => amount < 0).sort((a, b) => (a.accountId < b.accountId ? -1 : 1));
  const hold = operation.hold ? holdIn(operation, body.hold) : null;
  const isWhole =
    legs.length === wanted.length &&
    wanted.every(({ accountId, amount }, place) => {
      const leg = kind === 'atomic' ? legs[place] : ids.get(accountId);
      return leg?.accountId === accountId && (amount === null || leg.amount === amount);
    }) &&
    transferId === (isTransfer && payer ? eventIdOf(payer.accountId, payer.version, payer.epoch) : null) &&
    body.reverses === reverses &&
    hold !== undefined &&
    typeof times.at(-1) === 'string';
  return isWhole ? { ...applied, legs, createdAt: times.at(-1) as string, hold } : undefined;
}

function legIn({ accountId = '', amount, balance, version, eventId = '' }: AnswerBody): LegAnswer | undefined {
  const epoch = Number.parseInt(eventId.split(':').at(-1) ?? '', 36);
  const isWhole =
    [amount, balance, version, epoch].every(Number.isSafeInteger) &&
    eventId === eventIdOf(accountId, Number(version), epoch);
  return isWhole ? ({ accountId, amount, balance, version, epoch } as LegAnswer) : undefined;
}

/** Undefined unless it is the hold of the operation, whole. */
function holdIn({ legs, hold }: Pick<Operation, 'legs' | 'hold'>, body: AnswerBody | undefined): HoldState | undefined {
  const { accountId, ...state } = (body ?? {}) as HoldState & { accountId: string };
  const { holdId, status, amount, captured, remaining, createdAt, updatedAt } = state;
  const isWhole =
    accountId === legs[0].accountId &&
    holdId === hold?.holdId &&
    [amount, captured, remaining].every(Number.isSafeInteger) &&
    typeof createdAt === 'string' &&
    typeof updatedAt === 'string' &&
    (status === 'active') === remaining > 0;
  const { expiresAt = null } = state;
  return isWhole ? { holdId, status, amount, captured, remaining, expiresAt, createdAt, updatedAt } : undefined;
}

export const holdStateIn = (accountId: string, holdId: string, body: AnswerBody) =>
  holdIn({ legs: [{ accountId, amount: 0 }], hold: { holdId } }, body);

/** As docs/events.md describes it, in words of its own. */
export function eventIdOf(accountId: string, version: number, epoch: number): string {
  return `${accountId}:${version}:${epoch.toString(36)}`;
}
