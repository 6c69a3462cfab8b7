// The consumer's rule over random histories of a database that restarts, loses commits, gets them
// back and forks, against a model of them: in whatever order the events come, nothing of another
// history is handled before that was reported, and nothing is reported that did not happen.
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { expect, it, vi } from 'vitest';
import type { BalanceEvent, Handled, Problem, Rewind } from '../../src/client/events.ts';
import { createInOrder, type EventMessage, type InOrder } from '../../src/client/in-order.ts';
import { type Random, randomFrom } from '../chaos/random.ts';
import { ModelDatabase } from '../support/histories-model.ts';

vi.mock('../../src/client/retry-pause.ts', () => ({ retryPauseMs: () => 0 })); // the pauses alone

const RUNS = Number(process.env.RUNS ?? 100);
const STEPS = 90;
const ACCOUNTS = ['a', 'b', 'c'];

it.each([
  ['harmless restarts alone', { cuts: 0, forks: 0 }],
  ['cuts', { cuts: 0.08, forks: 0 }],
  ['cuts and forks', { cuts: 0.05, forks: 0.05 }],
])('reports what happened before it continues, and nothing else: %s', { timeout: 240_000 }, async (_, chances) => {
  let rewinds = 0;
  let backfilled = 0;
  for (let seed = 1; seed <= RUNS; seed += 1) {
    const run = new Run(randomFrom(seed), chances);
    await run.play().catch((error) => {
      throw new Error(`seed ${seed}: ${error.message}`, { cause: error });
    });
    rewinds += run.rewinds;
    backfilled += run.backfilled;
  }
  expect(backfilled).toBeGreaterThan(RUNS / 10);
  if (chances.cuts + chances.forks === 0) expect(rewinds).toBe(0);
  else expect(rewinds).toBeGreaterThan(RUNS / 2);
});

class Run {
  readonly #random: Random;
  readonly #chances: { cuts: number; forks: number };
  readonly #database: ModelDatabase;
  /** Two processes take turns at the queue, each with what it remembers. */
  readonly #takesTurns: boolean;
  #consumers: InOrder[];
  #active: InOrder;
  #unpublished: BalanceEvent[] = [];
  readonly #published: BalanceEvent[] = [];
  #queue: BalanceEvent[][] = [];
  readonly #unacknowledged = new Set<BalanceEvent[]>();
  /** Of the subscriber: how far it stored, and its effects. */
  readonly #stored = new Map<string, string>();
  readonly #effects = new Map<string, BalanceEvent[]>();
  /** The history when the entries were asked last. */
  readonly #asked = new Map<string, readonly BalanceEvent[]>();
  /** By id, as the entries had them when they were read last. */
  readonly #read = new Map<string, BalanceEvent>();
  readonly #faults: string[] = [];
  /** Since they were last counted. */
  #calls = 0;
  rewinds = 0;
  backfilled = 0;

  constructor(random: Random, chances: { cuts: number; forks: number }) {
    this.#random = random;
    this.#chances = chances;
    this.#database = new ModelDatabase(random);
    this.#takesTurns = random.chance(0.3);
    this.#active = this.#consumer();
    this.#consumers = [this.#active, this.#consumer()];
  }

  async play(): Promise<void> {
    for (let step = 0; step < STEPS; step += 1) {
      await this.#step();
      for (let turns = this.#random.between(0, 3); turns > 0; turns -= 1) await turn();
      expect(this.#faults).toEqual([]);
    }
    await this.#settle();
    await Promise.all(this.#consumers.map((consumer) => consumer.stop()));
    expect(this.#faults).toEqual([]);
  }

  async #step(): Promise<void> {
    const { cuts, forks } = this.#chances;
    const random = this.#random;
    const draw = random();
    const change = () => this.#unpublished.push(this.#database.change(random.pick(ACCOUNTS)));
    const steps: [probability: number, step: () => unknown][] = [
      [cuts, () => this.#lose(() => this.#database.lose())],
      [forks, () => this.#lose(() => this.#database.fork())],
      [0.06, () => this.#database.restart()],
      [0.05, () => this.#comeAgain()],
      [0.03, () => this.#restartConsumer()],
      [0.03, () => this.#loseSession()],
      [this.#takesTurns ? 0.06 : 0, () => this.#otherTakesOver()],
      [0.34, change],
      [0.17, () => this.#publish()],
      [1, () => this.#deliver()],
    ];
    let below = 0;
    const chosen = steps.find(([probability]) => {
      below += probability;
      return draw < below;
    });
    await chosen?.[1]();
  }

  /** What was not published may come late, or never. */
  #lose(lose: () => void): void {
    lose();
    this.#unpublished = this.#unpublished.filter(() => this.#random.chance(0.5));
  }

  #publish(): void {
    if (this.#unpublished.length === 0) return;
    const place = this.#random.chance(0.8) ? 0 : this.#random.between(0, this.#unpublished.length - 1);
    const batch = this.#unpublished.splice(place, this.#random.between(1, 2));
    this.#published.push(...batch);
    this.#queue.push(batch);
  }

  #comeAgain(): void {
    if (this.#published.length > 0) this.#queue.push([this.#random.pick(this.#published)]);
  }

  #deliver(): void {
    const place = this.#random.chance(0.7) ? 0 : this.#random.between(0, Math.max(0, this.#queue.length - 1));
    const [events] = this.#queue.splice(place, 1);
    if (!events) return;
    this.#unacknowledged.add(events);
    const message: EventMessage = {
      events,
      redelivered: false,
      replayed: false,
      done: () => this.#unacknowledged.delete(events),
    };
    this.#active.take(message);
  }

  #requeue(): void {
    this.#queue = [...this.#unacknowledged, ...this.#queue];
    this.#unacknowledged.clear();
  }

  #loseSession(): void {
    this.#active.forget();
    this.#requeue();
  }

  async #restartConsumer(): Promise<void> {
    await this.#active.stop();
    this.#requeue();
    const next = this.#consumer();
    this.#consumers = this.#consumers.map((one) => (one === this.#active ? next : one));
    this.#active = next;
  }

  /**
   * The one that is put back is not notified, and keeps what it has in hand; no handler of it is
   * running.
   */
  async #otherTakesOver(): Promise<void> {
    for (this.#calls = 1; this.#calls > 0; ) {
      this.#calls = 0;
      await delay(4); // longer than between two tries
    }
    this.#requeue();
    this.#active = this.#consumers.find((one) => one !== this.#active) as InOrder;
  }

  #consumer(): InOrder {
    return createInOrder(
      {
        client: {
          readEntries: async (accountId, page) => {
            await this.#pause();
            return this.#entries(accountId, page);
          },
        },
        lastHandled: async (accountId) => {
          await this.#pause();
          return JSON.parse(this.#stored.get(accountId) ?? 'null');
        },
        handle: async (event, { handled, replayed }) => {
          const { id } = event;
          await this.#pause();
          if (this.#random.chance(0.05)) throw new Error('no luck');
          if (replayed) expect(event).toEqual(this.#read.get(id));
          if (replayed) this.backfilled += 1;
          this.#handle(replayed ? (this.#read.get(id) as BalanceEvent) : event, handled);
        },
        onGap: async ({ accountId, firstMissing, lastMissing, handled }) => {
          this.#noteUnlessPresent('a gap', accountId);
          if (firstMissing !== this.#effectsOf(accountId).length) this.#faults.push('another gap than there is');
          if (this.#random.chance(0.5)) return 'backfill';
          if (firstMissing === 0 || this.#random.chance(0.4)) return 'wait';
          const missing = (this.#asked.get(accountId) ?? []).slice(firstMissing, lastMissing + 1);
          for (const event of missing) this.#handle(event, handled);
          return 'skip';
        },
        onRewind: async (rewind) => {
          await this.#pause();
          if (this.#random.chance(0.1)) throw new Error('no luck');
          this.#rewind(rewind);
        },
      },
      // With turns, no timer of the process that is put back may fire; and each message may be the
      // first after a turn.
      {
        concurrency: this.#random.between(1, 3),
        // Where little fits in hand, a gap is due at once.
        prefetch: !this.#takesTurns && this.#random.chance(0.5) ? this.#random.between(1, 4) : 1000,
        gapTimeoutMs: this.#takesTurns ? 60_000 : 1,
        ...(this.#takesTurns ? { quietMs: -1 } : {}),
      },
      (problem) => this.#note(problem),
    );
  }

  #note({ kind, message, accountId = '', version = -1 }: Problem): void {
    if (kind === 'last_handled_failed') this.#faults.push(message);
    const event = this.#database.history(accountId)[version];
    const isDropped = kind === 'superseded' && event !== undefined && message.includes(` ${event.id} `);
    if (isDropped && !this.#database.isForked && this.#database.isNewest(event)) this.#faults.push(message);
  }

  async #pause(): Promise<void> {
    this.#calls += 1;
    if (this.#random.chance(0.3)) await turn();
  }

  #entries(accountId: string, page: { limit: number; cursor?: string | undefined }) {
    const history = this.#database.history(accountId);
    if (page.cursor === undefined) this.#asked.set(accountId, history);
    for (const event of history) this.#read.set(event.id, event);
    return this.#database.page(accountId, page);
  }

  #effectsOf(accountId: string): BalanceEvent[] {
    const effects = this.#effects.get(accountId) ?? [];
    this.#effects.set(accountId, effects);
    return effects;
  }

  #handle(event: BalanceEvent, handled: Handled): void {
    const effects = this.#effectsOf(event.data.accountId);
    if (effects.includes(event)) return void this.#faults.push(`${event.id} was handled again`);
    if (this.#database.parentOf(event) !== effects.at(-1)) {
      this.#faults.push(`${event.id} was handled after ${effects.at(-1)?.id}, which is of another history`);
    }
    effects.push(event);
    this.#stored.set(event.data.accountId, JSON.stringify(handled));
  }

  #noteUnlessPresent(what: string, accountId: string): void {
    const last = this.#effectsOf(accountId).at(-1);
    if (last && !this.#asked.get(accountId)?.includes(last)) this.#faults.push(`${what} after a history that was cut`);
  }

  #rewind({ accountId, last, shared, event }: Rewind): void {
    const effects = this.#effectsOf(accountId);
    const present = this.#asked.get(accountId) ?? [];
    const first = effects.findIndex((effect, version) => effect !== present[version]);
    this.rewinds += 1;
    if (last.version !== effects.length - 1) this.#faults.push(`last is ${last.version}`);
    if (first < 0) this.#faults.push(`a rewind of ${accountId} at ${event.id}, though nothing was lost`);
    if (!present.some((one) => isDeepStrictEqual(one, event)))
      this.#faults.push(`a rewind because of ${event.id}, which is not of this history`);
    if (
      !this.#database.isForked &&
      (shared?.version !== first - 1 || shared.epoch !== (present[first - 1]?.data.epoch ?? 0))
    ) {
      this.#faults.push(`a rewind of ${accountId} to ${shared?.version}:${shared?.epoch} instead of ${first - 1}`);
    }
    // After a fork epochs say nothing, so the subscriber compares its effects with the entries, as
    // docs/events.md says.
    const kept = effects.slice(0, first < 0 ? undefined : first);
    this.#effects.set(accountId, kept);
    const { version = -1, epoch = 0, balance = 0, held = 0 } = kept.at(-1)?.data ?? {};
    this.#stored.set(accountId, JSON.stringify(this.#database.isForked ? { version, epoch, balance, held } : shared));
  }

  /**
   * Each account has one more change, everything comes once more, and the subscriber ends where the
   * database is.
   */
  async #settle(): Promise<void> {
    const isThere = () =>
      ACCOUNTS.every((account) => {
        const history = this.#database.history(account);
        const effects = this.#effectsOf(account);
        return effects.length === history.length && history.every((event, version) => event === effects[version]);
      });
    for (let round = 0; round < 10 && (round === 0 || !isThere()); round += 1) {
      for (const account of ACCOUNTS) {
        do this.#unpublished.push(this.#database.change(account));
        while (this.#database.history(account).length <= this.#effectsOf(account).length);
      }
      while (this.#unpublished.length > 0) this.#publish();
      const all = ACCOUNTS.flatMap((account) => this.#database.history(account));
      this.#queue.push(...this.#random.shuffled(all).map((event) => [event]));
      while (this.#queue.length > 0) this.#deliver();
      for (let turns = 0; turns < 2000 && this.#unacknowledged.size > 0; turns += 1) await turn();
    }
    // Its pauses and gaps have timers, which a busy machine fires late.
    for (let turns = 0; !this.#takesTurns && turns < 500_000 && this.#unacknowledged.size > 0; turns += 1) await turn();
    expect(this.#faults).toEqual([]);
    for (const account of ACCOUNTS) {
      const ids = (events: readonly BalanceEvent[]) => events.map(({ id }) => id);
      expect(ids(this.#effectsOf(account))).toEqual(ids(this.#database.history(account)));
    }
    // What is ahead of the history is dropped when the gap before it was waited for.
    if (!this.#takesTurns) expect(this.#unacknowledged.size).toBe(0);
  }
}
