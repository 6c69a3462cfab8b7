// A batch of updates as the parameters of apply_changes, and its answer as results. Both go as text that is made and read here:
// through the driver's own arrays and rows a batch of 1,000 costs six times as much.
import type { BalanceUpdate, UpdateResult } from './balance-update.ts';

/** The contract is above the function: migrations/functions/apply_changes.sql. */
export const APPLY = {
  name: 'apply_changes',
  text: `SELECT outcomes::text, replayed::text, balances::text, versions::text, epochs::text, times, batch_epoch, batch_time
         FROM apply_changes($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
};

/** One row. Array literals, null where they say nothing. */
export interface ApplyAnswer {
  outcomes: string | null;
  replayed: string | null;
  balances: string;
  versions: string;
  epochs: string | null;
  times: (Date | null)[] | null;
  batch_epoch: number;
  batch_time: Date;
}

export function parametersOf(updates: readonly BalanceUpdate[]): (string | null)[] {
  const accounts = [...new Set(updates.map(({ accountId }) => accountId))].sort(); // ASCII: in byte order
  const places = new Map(accounts.map((accountId, index) => [accountId, index + 1]));
  const isKeyed = updates.some(({ idempotencyKey }) => idempotencyKey !== null);
  return [
    textArray(accounts),
    `{${updates.map(({ accountId }) => places.get(accountId)).join(',')}}`,
    `{${updates.map(({ amount }) => amount).join(',')}}`,
    textArrayOrNull(updates.map(({ reference }) => reference)),
    textArrayOrNull(updates.map(({ actor }) => actor)),
    textArrayOrNull(updates.map(({ traceparent }) => traceparent)),
    isKeyed ? textArray(updates.map(({ idempotencyKey }) => idempotencyKey)) : null,
    isKeyed ? bytesArray(updates.map(({ fingerprint }) => fingerprint)) : null,
    isKeyed ? firstsOf(updates) : null,
  ];
}

/** Of each item the first one with the same account, client and key; null where all differ. */
function firstsOf(updates: readonly BalanceUpdate[]): string | null {
  const firsts = new Map<string, number>();
  let areAllFirst = true;
  const places = updates.map(({ accountId, actor, idempotencyKey }, index) => {
    if (idempotencyKey === null) return index + 1;
    const scope = `${accountId} ${actor ?? ''} ${idempotencyKey}`; // no id and no name holds a space
    const first = firsts.get(scope);
    if (first === undefined) firsts.set(scope, index + 1);
    else areAllFirst = false;
    return first ?? index + 1;
  });
  return areAllFirst ? null : `{${places.join(',')}}`;
}

/** In the order of the updates. */
export function resultsOf(answer: ApplyAnswer): UpdateResult[] {
  const balances = numbersIn(answer.balances);
  const versions = numbersIn(answer.versions);
  const epochs = answer.epochs === null ? undefined : numbersIn(answer.epochs);
  const outcomes = answer.outcomes === null ? undefined : elementsOf(answer.outcomes);
  const replayed = answer.replayed === null ? undefined : elementsOf(answer.replayed);
  const batchTime = answer.batch_time.toISOString();
  return balances.map((balance, index) => {
    const outcome = outcomes?.[index] ?? 'NULL';
    if (balance === null) return { outcome } as UpdateResult;
    return {
      outcome: outcome === 'NULL' ? 'applied' : outcome,
      replayed: replayed?.[index] === 't',
      balance,
      version: versions[index],
      epoch: epochs?.[index] ?? answer.batch_epoch,
      createdAt: answer.times?.[index]?.toISOString() ?? batchTime,
    } as UpdateResult;
  });
}

/** Of words and nulls only. */
function elementsOf(literal: string): string[] {
  return literal.slice(1, -1).split(',');
}

function numbersIn(literal: string): (number | null)[] {
  const list = literal.includes('N') ? literal.replaceAll('NULL', 'null') : literal;
  return JSON.parse(`[${list.slice(1, -1)}]`);
}

/** Quoted without exception: unquoted, `NULL` would be one. */
function textArray(values: readonly (string | null)[]): string {
  return `{${values.map((value) => (value === null ? 'NULL' : `"${value.replace(/["\\]/g, '\\$&')}"`)).join(',')}}`;
}

function textArrayOrNull(values: readonly (string | null)[]): string | null {
  return values.every((value) => value === null) ? null : textArray(values);
}

function bytesArray(values: readonly (string | null)[]): string {
  return `{${values.map((hex) => (hex === null ? 'NULL' : `"\\\\x${hex}"`)).join(',')}}`;
}
