// A batch of operations as the parameters of apply_changes, and its answer as results. Both are
// text that is encoded and decoded here: with the driver's own arrays and rows, a batch of 1,000
// costs six times as much.
import { type Literal, texts, textsIn, textsOrNull, words, wordsOrNull } from '../../shared/array-literals.ts';
import type { HoldState, Leg, LegResult, Operation, OperationResult } from './operation.ts';

const PARAMETERS = 26;
/** The numbers of those that {@link texts} wrote. */
const TEXTS: ReadonlySet<number> = new Set([1, 4, 5, 6, 7, 10, 20, 25]);
const parameter = (number: number) => (TEXTS.has(number) ? textsIn(`$${number}`) : `$${number}`);

/** The contract is above the function: migrations/functions/apply_changes.sql. */
export const APPLY = {
  name: 'apply_changes',
  text: `SELECT outcomes::text, replayed::text, failed_legs::text, array_to_string(hold_states, ',', 'null') AS hold_states,
                balances::text, versions::text, epochs::text, times::text, amounts::text, batch_epoch, batch_time
         FROM apply_changes(${Array.from({ length: PARAMETERS }, (_, index) => parameter(index + 1)).join(', ')})`,
};

/** One row. Array literals, null where they say nothing; `hold_states` is a list of JSON values. */
export interface ApplyAnswer {
  outcomes: string | null;
  replayed: string | null;
  failed_legs: string | null;
  hold_states: string | null;
  balances: string;
  versions: string;
  epochs: string | null;
  times: string | null;
  amounts: string | null;
  batch_epoch: number;
  batch_time: Date;
}

export function parametersOf(operations: readonly Operation[]): Literal[] {
  const arePlain = operations.every(({ kind }) => kind === 'update');
  const legs: Leg[] = [];
  const owners: Operation[] = []; // of each leg
  for (const operation of operations) {
    for (const leg of operation.legs) {
      legs.push(leg);
      owners.push(operation);
    }
  }
  const ids = new Set(legs.map(({ accountId }) => accountId));
  if (!arePlain) {
    for (const { reversal, keyAccountId } of operations) {
      ids.add(keyAccountId);
      if (reversal) ids.add(reversal.accountId);
    }
  }
  const accounts = [...ids].sort(); // ASCII: in byte order
  const places = new Map(accounts.map((accountId, index) => [accountId, index + 1]));
  const isKeyed = operations.some(({ idempotencyKey }) => idempotencyKey !== null);
  const isFingerprinted = operations.some(({ fingerprint }) => fingerprint !== null);
  return [
    texts(accounts),
    `{${legs.map(({ accountId }) => places.get(accountId)).join(',')}}`,
    `{${legs.map(({ amount }) => amount ?? 'NULL').join(',')}}`,
    textsOrNull(legs.map(({ reference }) => reference)),
    textsOrNull(legs.map(({ metadata }) => metadata)),
    textsOrNull(owners.map(({ actor }) => actor)),
    textsOrNull(owners.map(({ traceparent }) => traceparent)),
    wordsOrNull(legs.map(({ expectedVersion }) => expectedVersion)),
    legs.some(({ upTo }) => upTo) ? `{${legs.map(({ upTo }) => upTo).join(',')}}` : null,
    isKeyed ? texts(operations.map(({ idempotencyKey }) => idempotencyKey)) : null,
    isFingerprinted ? bytes(operations.map(({ fingerprint }) => fingerprint)) : null,
    isKeyed ? firstsOf(operations) : null,
    ...(arePlain ? NOTHING_ELSE : kindsOf(operations, places)),
    operations.some(({ isDeclineForgotten }) => isDeclineForgotten)
      ? `{${operations.map(({ isDeclineForgotten }) => isDeclineForgotten === true).join(',')}}`
      : null,
  ];
}

const NOTHING_ELSE: readonly Literal[] = Array.from({ length: 13 }, () => null);

/** The parameters that only a batch with other operations than updates needs. */
function kindsOf(operations: readonly Operation[], places: ReadonlyMap<string, number>): Literal[] {
  let next = 1;
  const firstLegs = operations.map(({ legs }) => {
    const first = next;
    next += legs.length;
    return first;
  });
  const holds = new Targets<{ account: number; holdId: string }>();
  const reversals = new Targets<NonNullable<Operation['reversal']>>();
  const objects = operations.map(({ legs, hold, reversal }) => {
    if (hold) {
      const { accountId } = legs[0];
      const place = places.get(accountId) as number;
      return holds.placeOf(`${accountId} ${hold.holdId}`, { account: place, holdId: hold.holdId });
    }
    if (reversal) return reversals.placeOf(`${reversal.accountId} ${reversal.version} ${reversal.epoch}`, reversal);
    return null;
  });
  return [
    payersOf(operations, firstLegs),
    words(operations.map(({ kind }) => (kind === 'update' ? null : kind))),
    `{${[...firstLegs, next].join(',')}}`,
    words(operations.map(({ keyAccountId }) => places.get(keyAccountId) as number)),
    words(objects),
    wordsOrNull(operations.map(({ hold }) => hold?.expiresInS ?? null)),
    ...(holds.all.length === 0
      ? [null, null]
      : [words(holds.all.map(({ account }) => account)), texts(holds.all.map(({ holdId }) => holdId))]),
    ...(reversals.all.length === 0
      ? [null, null, null, null, null]
      : [
          words(reversals.all.map(({ accountId }) => places.get(accountId) as number)),
          words(reversals.all.map(({ version }) => version)),
          words(reversals.all.map(({ epoch }) => epoch)),
          words(reversals.all.map(({ original }) => original)),
          texts(reversals.all.map(({ id }) => id)),
        ]),
  ];
}

/**
 * For each leg of a transfer, the index (from 1) of the lowest debited leg, whose account holds the
 * key. Null if there is none.
 */
function payersOf(operations: readonly Operation[], firstLegs: readonly number[]): Literal {
  const payers = operations.flatMap(({ kind, legs, keyAccountId }, index) => {
    if (legs.length === 1 || kind === 'atomic') return legs.map(() => null);
    const payer = (firstLegs[index] as number) + legs.findIndex(({ accountId }) => accountId === keyAccountId);
    return legs.map(() => payer);
  });
  return wordsOrNull(payers);
}

/** Each once, with the place that it has among them, from 1. */
class Targets<T> {
  readonly all: T[] = [];
  readonly #places = new Map<string, number>();

  placeOf(name: string, target: T): number {
    const known = this.#places.get(name);
    if (known !== undefined) return known;
    this.all.push(target);
    this.#places.set(name, this.all.length);
    return this.all.length;
  }
}

/** Of each operation the first one with the same account, client and key; null where all differ. */
function firstsOf(operations: readonly Operation[]): Literal {
  const firsts = new Map<string, number>();
  let areAllFirst = true;
  const places = operations.map(({ keyAccountId, actor, idempotencyKey }, index) => {
    if (idempotencyKey === null) return index + 1;
    // No id and no name holds a space.
    const scope = `${keyAccountId} ${actor ?? ''} ${idempotencyKey}`;
    const first = firsts.get(scope);
    if (first === undefined) firsts.set(scope, index + 1);
    else areAllFirst = false;
    return first ?? index + 1;
  });
  return areAllFirst ? null : `{${places.join(',')}}`;
}

/** In the order of the operations. */
export function resultsOf(operations: readonly Operation[], answer: ApplyAnswer): OperationResult[] {
  const balances = numbersIn(answer.balances);
  const versions = numbersIn(answer.versions);
  const epochs = answer.epochs === null ? undefined : numbersIn(answer.epochs);
  const amounts = answer.amounts === null ? undefined : numbersIn(answer.amounts);
  const outcomes = answer.outcomes === null ? undefined : elementsOf(answer.outcomes);
  const replayed = answer.replayed === null ? undefined : elementsOf(answer.replayed);
  const failedLegs = answer.failed_legs === null ? undefined : numbersIn(answer.failed_legs);
  const holds: (HoldState | null)[] | undefined =
    answer.hold_states === null ? undefined : JSON.parse(`[${answer.hold_states}]`);
  const times = answer.times === null ? undefined : elementsOf(answer.times);
  const batchTime = answer.batch_time.toISOString();

  const legResult = (place: number, leg: Leg): LegResult | null => {
    const balance = balances[place];
    if (balance === null || balance === undefined) return null;
    return {
      amount: amounts?.[place] ?? leg.amount ?? 0,
      balance,
      version: versions[place] as number,
      epoch: epochs?.[place] ?? answer.batch_epoch,
      createdAt: timeIn(times?.[place]) ?? batchTime,
    };
  };

  let first = 0;
  return operations.map(({ legs }, index) => {
    const start = first;
    first += legs.length;
    const outcome = outcomes?.[index] ?? 'NULL';
    const hold = holds?.[index] ?? null;
    const isReplayed = replayed?.[index] === 't';
    if (outcome === 'NULL') {
      return {
        outcome: 'applied',
        replayed: isReplayed,
        legs: legs.map((leg, place) => legResult(start + place, leg)),
        hold,
      };
    }
    const leg = (failedLegs?.[index] ?? start + 1) - start - 1;
    const found = legResult(start + leg, legs[leg] as Leg);
    if (found) return { outcome, replayed: isReplayed, leg, found } as OperationResult;
    return { outcome, leg, hold } as OperationResult;
  });
}

/** Of words, times and nulls only. */
function elementsOf(literal: string): string[] {
  return literal.slice(1, -1).split(',');
}

function numbersIn(literal: string): (number | null)[] {
  const list = literal.includes('N') ? literal.replaceAll('NULL', 'null') : literal;
  return JSON.parse(`[${list.slice(1, -1)}]`);
}

/**
 * @param element as PostgreSQL writes it where DateStyle is ISO and TimeZone UTC:
 * `"2026-11-23 19:43:56.55+00"`.
 */
function timeIn(element: string | undefined): string | undefined {
  if (element === undefined || element === 'NULL') return undefined;
  return new Date(`${element.slice(1, -1).replace(' ', 'T')}:00`).toISOString();
}

function bytes(values: readonly (string | null)[]): string {
  return `{${values.map((hex) => (hex === null ? 'NULL' : `"\\\\x${hex}"`)).join(',')}}`;
}
