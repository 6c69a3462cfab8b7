// The last answers of this process: account and version, by epoch. When the epoch rises they are
// compared with the database, which may have lost commits (lost-answers.ts). Bounded, at one
// Map.set per change.
import type { SeenVersion } from '../../shared/cut-history.ts';

/** At least this many of the latest accounts are remembered, and at most twice as many. */
const ACCOUNTS_MIN = 10_000;
/**
 * Epochs that ended and were not compared yet. The database answers before an epoch can rise, so
 * there is one, rarely two.
 */
const PAST_MAX = 4;

/** The last versions of one epoch. */
class Generations {
  readonly epoch: number;
  #recent = new Map<string, number>();
  #older = new Map<string, number>();

  constructor(epoch: number) {
    this.epoch = epoch;
  }

  /**
   * 0.03 µs; 0.7 where there are more accounts. Two maps in turn: taking the oldest account out of
   * one would cost much more.
   */
  set(accountId: string, version: number): void {
    this.#recent.set(accountId, version);
    if (this.#recent.size <= ACCOUNTS_MIN) return;
    this.#older = this.#recent;
    this.#recent = new Map();
  }

  get isEmpty(): boolean {
    return this.#recent.size + this.#older.size === 0;
  }

  /** Each account once. */
  all(): SeenVersion[] {
    return [...new Map([...this.#older, ...this.#recent])].map(([accountId, version]) => ({
      ...{ accountId, version, epoch: this.epoch },
    }));
  }
}

export class AnswersMemory {
  #present = new Generations(0);
  #past: Generations[] = [];

  /** A change that is answered with 2xx. */
  note(accountId: string, { version, epoch }: { version: number; epoch: number }): void {
    const generations = epoch === this.#present.epoch ? this.#present : this.#of(epoch);
    generations.set(accountId, version);
  }

  /** Of the latest answers. */
  get epoch(): number {
    return this.#present.epoch;
  }

  /** Ends the epoch before, where this one is higher. */
  see(epoch: number): void {
    if (epoch > this.#present.epoch) this.#of(epoch);
  }

  /**
   * Ends the present epoch for a lower one: the database is a server whose history another one had
   * left.
   */
  fallTo(epoch: number): void {
    const late = this.#past.findIndex((generations) => generations.epoch === epoch);
    const present = late < 0 ? new Generations(epoch) : this.#past.splice(late, 1)[0];
    this.#past.push(this.#present);
    this.#present = present as Generations;
    this.#past.splice(0, this.#past.length - PAST_MAX);
  }

  get isEmpty(): boolean {
    return this.#present.isEmpty && this.#past.length === 0;
  }

  /** Returns the answers of epochs that ended, each once, and forgets them. */
  takePast(): { epoch: number; seen: SeenVersion[] }[] {
    return this.#past.splice(0).map((generations) => ({ epoch: generations.epoch, seen: generations.all() }));
  }

  #of(epoch: number): Generations {
    if (epoch > this.#present.epoch) {
      if (!this.#present.isEmpty) this.#past.push(this.#present);
      this.#present = new Generations(epoch);
      this.#past.splice(0, this.#past.length - PAST_MAX);
      return this.#present;
    }
    // An answer of a server that is no longer the primary, after one of the new one.
    let past = this.#past.find((generations) => generations.epoch === epoch);
    if (!past) {
      past = new Generations(epoch);
      this.#past.push(past);
      this.#past.splice(0, this.#past.length - PAST_MAX);
    }
    return past;
  }
}
