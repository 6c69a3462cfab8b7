// Gives each operation its result, and counts it. Applied changes are noted in AnswersMemory: if
// PostgreSQL loses commits, it shows which answers were lost.
import type { AnswersMemory } from './answers-memory.ts';
import type { DeclineLimit } from './decline-limit.ts';
import type { Job } from './job-queue.ts';
import type { Kind, Leg, Operation, OperationResult } from './operation.ts';

/** By operation and outcome, such as `transfer applied`; a repeated answer is `replayed`. */
export type Outcomes = Record<string, number>;

/** What an operation is counted as. */
export const COUNTED_AS = {
  update: 'update',
  atomic: 'atomic',
  transfer: 'transfer',
  reversal: 'reversal',
  reversal_rest: 'reversal',
  hold: 'hold',
  capture: 'capture',
  capture_final: 'capture',
  release: 'release',
  hold_change: 'hold_change',
} as const satisfies Record<Kind, string>;

/** An outcome of operations that PostgreSQL did not decide. */
export type Undecided = 'unavailable' | 'overloaded' | 'outcome_unknown' | 'internal';

export interface Results {
  /** @param results of PostgreSQL, in order. */
  give(batch: readonly Job[], results: readonly OperationResult[]): void;
  /** The same to all. */
  giveAll(batch: readonly Job[], outcome: Undecided): void;
  /** For an operation that no lane took. */
  refused(operation: Operation, outcome: Undecided): OperationResult;
  /** Of all results since the start of the process. */
  outcomes: Readonly<Outcomes>;
}

export interface ResultsOptions {
  /** One for all lanes. */
  declineLimit: DeclineLimit;
  /** Receives each change that is answered. */
  answers: AnswersMemory;
  /** Called after a batch in which at least one operation was applied. */
  onChange: () => void;
}

export function createResults({ declineLimit, answers, onChange }: ResultsOptions): Results {
  const outcomes: Outcomes = {};
  const count = ({ kind }: Operation, outcome: string) => {
    const name = `${COUNTED_AS[kind]} ${outcome}`;
    outcomes[name] = (outcomes[name] ?? 0) + 1;
  };
  const refused = (operation: Operation, outcome: Undecided): OperationResult => {
    count(operation, outcome);
    return { outcome };
  };

  return {
    give(batch, results) {
      let changed = false;
      results.forEach((result, index) => {
        const replayed = 'replayed' in result && result.replayed;
        const { operation, resolve } = batch[index] as Job;
        if (result.outcome === 'applied' && !replayed) {
          changed = true;
          result.legs.forEach((leg, number) => {
            if (leg) answers.note((operation.legs[number] as Leg).accountId, leg);
          });
        }
        if ('found' in result && !replayed && operation.idempotencyKey !== null) {
          declineLimit.count(operation.actor ?? '');
        }
        count(operation, replayed ? 'replayed' : result.outcome);
        resolve(result);
      });
      if (changed) onChange();
    },
    giveAll(batch, outcome) {
      for (const { operation, resolve } of batch) resolve(refused(operation, outcome));
    },
    refused,
    outcomes,
  };
}
