// The events of one account: handled one at a time, in the order of its history. An event that does
// not follow is investigated before any other event of the account is handled. One loop, which ends
// when nothing can be done until more arrives.
import type { BalanceEvent } from '../shared/contract.ts';
import { missingBetween, VERSIONS_MAX } from './backfill.ts';
import { Calls } from './calls.ts';
import { GapClock } from './gap-clock.ts';
import { Held } from './held.ts';
import { after, before, checkedHandled, type Handled, isSame, meaningOf, NOTHING } from './history.ts';
import { standingOf } from './standing.ts';
import type { Delivery } from './subscription.ts';
import type { Surroundings } from './surroundings.ts';

export interface Item extends Pick<Delivery, 'redelivered' | 'replayed'> {
  event: BalanceEvent;
  /** It was dealt with. */
  settle(): void;
}

export class AccountEvents {
  readonly id: string;
  readonly #with: Surroundings;
  readonly #held = new Held<Item>();
  /** Held although not above the last version: none of these fits. */
  #doubted: Set<Item> | undefined;
  #last: Handled | undefined;
  /** The last version that the subscriber wants read from the entries. */
  #backfillTo = NOTHING.version;
  /** Versions that are read at a time. */
  #backfillMax = VERSIONS_MAX;
  /** Gives up the wait for a place to backfill. */
  #leaveLine: (() => void) | undefined;
  /** The turn in which #last was looked up. */
  #sureIn: number | undefined;
  #isRunning = false;
  #running: Promise<void> = Promise.resolve();
  readonly #calls: Calls;
  readonly #gap: GapClock;

  constructor(id: string, surroundings: Surroundings) {
    this.id = id;
    this.#with = surroundings;
    this.#calls = new Calls(id, surroundings);
    this.#gap = new GapClock(surroundings.gapTimeoutMs, () => this.advance());
  }

  get isIdle(): boolean {
    return !this.#isRunning && this.#held.size === 0;
  }

  get inHand(): number {
    return this.#held.size;
  }

  take(item: Item): void {
    // An event in hand may be delivered again (a consumer restored after a lost link between two
    // brokers): then the newer delivery has to wait for the handler, and the broker no longer knows
    // the older one.
    const copy = this.#held.find(item.event);
    if (copy) {
      [copy.settle, item.settle] = [item.settle, copy.settle];
      item.settle();
      return;
    }
    this.#held.add(item);
    if (this.#isSure) this.#place(item);
    if (this.#leaveLine && this.#last && this.#toDoNext(this.#last)) this.#leaveLine();
  }

  get #isSure(): boolean {
    return this.#sureIn === this.#with.turn();
  }

  /** Does what can be done. */
  advance(): void {
    if (this.#isRunning || this.#held.size === 0 || this.#with.stopping.aborted) return;
    this.#isRunning = true;
    this.#with.busy(1);
    const before = this.#running;
    const run = this.#run();
    if (this.#running === before) this.#running = run; // else it has ended already, and another has begun
  }

  /** Nothing more can arrive: if the account waits for that, its gap is due. */
  full(): void {
    this.#gap.full();
  }

  /** Events in hand will be delivered again, here or elsewhere. A running handler continues. */
  forget(): void {
    this.#calls.abandon();
    this.#leaveLine?.();
    this.#held.clear();
    this.#doubted = undefined;
    this.#backfillTo = NOTHING.version;
    this.#gap.reset();
  }

  /** Resolves when no callback is running; `stopping` is aborted before. */
  stop(): Promise<void> {
    this.#gap.stop();
    return this.#running;
  }

  async #run(): Promise<void> {
    while (this.#held.size > 0 && !this.#with.stopping.aborted) {
      const step = this.#nextStep();
      if (!step) break;
      await step();
    }
    if (this.#held.size === 0) this.#gap.reset();
    this.#isRunning = false;
    this.#with.busy(-1);
  }

  #nextStep(): (() => Promise<unknown>) | undefined {
    const last = this.#last;
    if (!this.#isSure || !last) return () => this.#lookUp();
    const item = this.#toDoNext(last);
    if (item) {
      return meaningOf(item.event.data, last) === 'next' ? () => this.#handle(item, last) : () => this.#lookInto(item);
    }
    if (last.version < this.#backfillTo) return () => this.#backfill();
    if (!this.#gap.isDue(this.#with.isFull(1))) return undefined;
    const behind = this.#held.lowest() as Item;
    return () => this.#calls.waiting(() => this.#lookInto(behind));
  }

  /**
   * Events that do not fit come first, the newest epoch before others: nothing is handled while the
   * history may have been cut.
   */
  #toDoNext(last: Handled): Item | undefined {
    let newest: Item | undefined;
    for (const item of this.#doubted ?? [])
      if (!newest || item.event.data.epoch > newest.event.data.epoch) newest = item;
    return newest ?? this.#held.at(last.version + 1)[0];
  }

  /**
   * Uses what the subscriber stored, if it stores anything; otherwise what was handled here;
   * otherwise it starts with the events that are there.
   */
  async #lookUp(): Promise<boolean> {
    const { callbacks, lookUps } = this.#with;
    const { lastHandled } = callbacks;
    const turn = this.#with.turn();
    if (!lastHandled) {
      this.#goOnFrom(this.#last ?? before((this.#held.lowest() as Item).event.data));
      return true;
    }
    const { era } = this.#calls;
    const found = await this.#calls.call({ kind: 'last_handled_failed' }, lookUps, async () =>
      checkedHandled(await lastHandled(this.id)),
    );
    if (!found || era !== this.#calls.era) return false;
    this.#goOnFrom(found.value, turn);
    return true;
  }

  #goOnFrom(last: Handled, turn = this.#with.turn()): void {
    if (last.version < (this.#last ?? last).version) this.#backfillTo = NOTHING.version; // that is another gap
    this.#last = last;
    this.#sureIn = turn;
    this.#doubted = undefined;
    for (const item of this.#held.upTo(last.version)) this.#place(item);
  }

  /**
   * For events not above the last version: settles those that need no action, and keeps the others.
   */
  #place(item: Item): void {
    const last = this.#last as Handled;
    if (item.event.data.version > last.version) return;
    const meaning = meaningOf(item.event.data, last);
    if (meaning === 'misfit') {
      this.#doubted ??= new Set();
      this.#doubted.add(item);
    } else if (meaning === 'superseded') this.#drop(item);
    else this.#settle(item);
  }

  #settle({ event }: Item): void {
    const item = this.#held.remove(event);
    if (!item) return;
    this.#doubted?.delete(item);
    item.settle();
  }

  #drop(item: Item): void {
    const { id, data } = item.event;
    const message = `the event ${id} was dropped: it is not in the account's history`;
    this.#with.report({ kind: 'superseded', message, accountId: this.id, version: data.version });
    this.#settle(item);
  }

  async #handle(item: Item, last: Handled): Promise<void> {
    const { event, redelivered, replayed } = item;
    const { callbacks, handling, isFull } = this.#with;
    const handled = after(last, event.data);
    const done = await this.#calls.call({ kind: 'handle_failed', version: event.data.version }, handling, async () => {
      if (!this.#isSure || this.#toDoNext(last) !== item) return false; // more arrived while it waited
      await callbacks.handle(event, {
        attempt: this.#calls.attempt,
        redelivered,
        replayed,
        handled,
        isFull: isFull(1),
      });
      return true;
    });
    if (!done?.value) return;
    this.#gap.reset();
    this.#last = handled;
    this.#settle(item);
    if (this.#isSure) for (const other of this.#held.at(handled.version)) this.#place(other);
  }

  /**
   * An event does not follow, or none has followed for too long: another process may have
   * continued, or one of the histories was cut.
   */
  async #lookInto(item: Item): Promise<void> {
    const { era } = this.#calls;
    if (!(await this.#lookUp())) return;
    const last = this.#last as Handled;
    const { event } = item;
    const meaning = meaningOf(event.data, last);
    if (this.#held.find(event) !== item || (meaning !== 'misfit' && meaning !== 'later')) return;
    const { client, readings, stopping } = this.#with;
    const found = await this.#calls.call({ kind: 'entries_failed', version: event.data.version }, readings, () =>
      standingOf(client, event, last, stopping),
    );
    if (!found || era !== this.#calls.era) return;
    const standing = found.value;
    if (standing.kind === 'superseded') this.#drop(item);
    else if (standing.kind === 'cut') await this.#calls.waiting(() => this.#rewind(item, last, standing.shared));
    else if (meaning === 'misfit') await this.#calls.waiting(() => this.#rewind(item, last, undefined));
    else await this.#ask(item, last, standing.before);
  }

  async #rewind({ event }: Item, last: Handled, shared: Handled | undefined): Promise<void> {
    const { callbacks, lookUps, questions } = this.#with;
    const { lastHandled, onRewind } = callbacks;
    const { era } = this.#calls;
    const done = await this.#calls.call(
      { kind: 'on_rewind_failed', version: event.data.version },
      questions,
      async () => {
        await onRewind({ accountId: this.id, last, shared, event, held: this.#held.size });
        if (!lastHandled) return shared ?? before(event.data);
        const now = checkedHandled(await lookUps.take(() => lastHandled(this.id)));
        if (!isSame(now, last)) return now;
        throw new Error(
          'onRewind has resolved, but lastHandled still returns a change that is not in the current history',
        );
      },
    );
    if (!done || era !== this.#calls.era) return;
    this.#gap.reset();
    this.#goOnFrom(done.value);
  }

  async #ask(item: Item, last: Handled, handled: Handled): Promise<void> {
    const { callbacks, questions, isFull } = this.#with;
    const { era } = this.#calls;
    const firstMissing = last.version + 1;
    const lastMissing = item.event.data.version - 1;
    let wasFull = false;
    const answer = await this.#calls.call({ kind: 'on_gap_failed', version: firstMissing }, questions, async () => {
      wasFull = isFull();
      const gap = { accountId: this.id, firstMissing, lastMissing, handled, held: this.#held.size, isFull: wasFull };
      const decision = await callbacks.onGap(gap);
      if (decision === 'skip' || decision === 'wait' || decision === 'backfill') return decision;
      throw new TypeError(`onGap must answer 'backfill', 'wait' or 'skip'`);
    });
    if (!answer || era !== this.#calls.era) return;
    this.#gap.reset(wasFull);
    if (answer.value === 'skip') this.#goOnFrom(handled);
    if (answer.value !== 'backfill') return;
    this.#backfillTo = lastMissing;
    this.#backfillMax = VERSIONS_MAX;
  }

  /**
   * Handles what it read before it frees its place, so that at most `concurrency` accounts hold
   * such entries. The pause after a failed read does not occupy a place.
   */
  async #backfill(): Promise<void> {
    const { era } = this.#calls;
    const pauseMs = await this.#with.backfills.take(
      () => this.#readMissing(era),
      (leave) => {
        this.#leaveLine = leave;
      },
    );
    this.#leaveLine = undefined;
    if (pauseMs !== undefined) await this.#calls.pause(pauseMs);
  }

  /** @returns the pause before the next attempt, if the entries could not be read. */
  async #readMissing(era: number): Promise<number | undefined> {
    const { client, readings, stopping } = this.#with;
    const isOver = () => era !== this.#calls.era || stopping.aborted;
    if (isOver()) return undefined; // while it waited for its place
    const after = (this.#last as Handled).version;
    const before = (this.#held.lowest() as Item).event.data.version;
    if (before <= after + 1) return undefined; // it came after all
    const limit = Math.min(this.#backfillMax, before - after - 1);
    const found = await this.#calls.once({ kind: 'entries_failed', version: after + 1 }, readings, () =>
      missingBetween(client, this.id, [after, before], limit, stopping),
    );
    if (found && 'pauseMs' in found) return found.pauseMs;
    if (!found || isOver()) return undefined;
    if (found.value.length === 0) this.#backfillTo = NOTHING.version;
    let handled = 0;
    for (const event of found.value) {
      const { version } = event.data;
      if (!this.#isSure && !(await this.#lookUp())) break;
      if (this.#last?.version !== version - 1 || isOver()) break;
      if (this.#held.at(version).length === 0)
        this.#held.add({ event, redelivered: false, replayed: true, settle() {} });
      const item = this.#toDoNext(this.#last);
      // What does not follow is looked into without a place.
      if (item?.event.data.version !== version || meaningOf(item.event.data, this.#last) !== 'next') break;
      await this.#handle(item, this.#last);
      if (this.#last?.version === version) handled += 1;
    }
    // If something keeps stopping it, read less: most of it would be read in vain.
    this.#backfillMax = Math.min(VERSIONS_MAX, Math.max(10, 2 * handled));
    return undefined;
  }
}
