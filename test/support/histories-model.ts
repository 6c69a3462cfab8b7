// A model of a database that restarts, loses commits, gets them back, and forks: which history each
// account has now, and which change came before each in its own history. Changes are told apart as
// objects, never by version or epoch.

import { BalanceError } from '../../src/client/balance-error.ts';
import type { BalanceEvent, EntriesPage, Entry } from '../../src/shared/contract.ts';
import type { Random } from '../chaos/random.ts';

interface State {
  epoch: number;
  accounts: ReadonlyMap<string, readonly BalanceEvent[]>;
}

/** Entries of one page. */
const PAGE = 3;

/** Of a page, where all of a history is read. */
const LIMIT_OF_A_WALK = 1000;

export class ModelDatabase {
  readonly #random: Random;
  #epoch = 1;
  #epochMax = 1;
  #accounts = new Map<string, readonly BalanceEvent[]>();
  readonly #past: State[] = [];
  readonly #parents = new WeakMap<BalanceEvent, BalanceEvent | undefined>();
  /** Whether it ever went on in another way under the same epoch. */
  isForked = false;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Whether a change is in the history now, and was in no history that was given up. */
  isNewest({ id, data }: BalanceEvent): boolean {
    return data.epoch === this.#epochMax && this.history(data.accountId)[data.version]?.id === id;
  }

  history(accountId: string): readonly BalanceEvent[] {
    return this.#accounts.get(accountId) ?? [];
  }

  parentOf(event: BalanceEvent): BalanceEvent | undefined {
    return this.#parents.get(event);
  }

  change(accountId: string): BalanceEvent {
    this.#past.push({ epoch: this.#epoch, accounts: new Map(this.#accounts) });
    const history = this.history(accountId);
    const parent = history.at(-1);
    const amount = parent ? this.#random.between(1, 2 ** 40) : 0; // no two of them by chance
    const heldChange = parent ? this.#random.between(0, 3) : 0;
    const version = history.length;
    const event: BalanceEvent = {
      specversion: '1.0',
      id: `${accountId}:${version}:${this.#epoch.toString(36)}`,
      source: '/highload-balance',
      type: parent ? 'balance.credited' : 'account.opened',
      subject: accountId,
      time: '2026-11-23T19:43:56.550Z',
      datacontenttype: 'application/json',
      data: {
        accountId,
        version,
        epoch: this.#epoch,
        ...(parent ? { previousEpoch: parent.data.epoch } : {}),
        asset: 'UNIT',
        amount,
        heldChange,
        balance: (parent?.data.balance ?? 0) + amount,
        held: (parent?.data.held ?? 0) + heldChange,
      },
    };
    this.#parents.set(event, parent);
    this.#accounts.set(accountId, [...history, event]);
    return event;
  }

  restart(): void {
    this.#epochMax += 1;
    this.#epoch = this.#epochMax;
  }

  /** Goes back to any state that there was, of a history that was given up too. */
  lose(): void {
    const recent = this.#random.chance(0.7) ? this.#past.slice(-8) : this.#past;
    if (recent.length === 0) return;
    this.#accounts = new Map(this.#random.pick(recent).accounts);
    this.restart();
  }

  /**
   * Goes back to a state of the same epoch, which goes on: a machine that was resumed with its memory. Not to before an opening:
   * two that leave the same cannot be told apart.
   */
  fork(): void {
    const same = this.#past.filter(
      ({ epoch, accounts }) => epoch === this.#epoch && accounts.size === this.#accounts.size,
    );
    if (same.length === 0) return;
    this.#accounts = new Map(this.#random.pick(same).accounts);
    this.isForked = true;
  }

  /** As the service gives them; sometimes the ledger is not there yet. @throws BalanceError */
  page(accountId: string, { limit, cursor }: { limit: number; cursor?: string | undefined }): EntriesPage {
    const history = this.history(accountId);
    if (history.length === 0) throw new BalanceError('account_not_found', 'no such account');
    const isFirst = cursor === undefined || limit < LIMIT_OF_A_WALK;
    const behind = isFirst && this.#random.chance(0.2) ? this.#random.between(0, history.length) : 0;
    const recorded = history.slice(0, history.length - behind);
    const below = Math.min(cursor === undefined ? recorded.length : Number(cursor), recorded.length);
    const lowest = Math.max(0, below - Math.min(limit, PAGE));
    const entries = recorded.slice(lowest, below).toReversed();
    return {
      accountId,
      version: history.length - 1,
      ledgerVersion: recorded.length === 0 ? null : recorded.length - 1,
      entries: entries.map(entryOf),
      nextCursor: lowest > 0 ? String(lowest) : null,
    };
  }
}

function entryOf({ id, type, time, data: { accountId: _, ...body } }: BalanceEvent): Entry {
  return { eventId: id, type, ...body, createdAt: time, recordedAt: time };
}
