// Hands events to the subscriber in the order of their versions, one at a time for each account, and tells when all of a
// message has been dealt with. What is in hand is bounded by `prefetch`, with RabbitMQ's help.
import { setTimeout as delay } from 'node:timers/promises';
import type { BalanceEvent } from '../shared/contract.ts';
import { backOffMs } from './back-off.ts';
import { Sequence, UNSEEN } from './sequence.ts';
import type { Delivery, Problem, SubscribeOptions } from './subscription.ts';
import { createTurns } from './turns.ts';

/** Accounts whose last version is remembered; that of another is looked up when it is met. */
const ACCOUNTS_MAX = 100_000;

export interface EventMessage {
  events: readonly BalanceEvent[];
  redelivered: boolean;
  replayed: boolean;
  /** Called once all of its events were handled, or are repeats. */
  done(): void;
}

export interface InOrder {
  take(message: EventMessage): void;
  /** The messages in hand are delivered again, here or elsewhere: lets go of them. Handlers under way go on. */
  forget(): void;
  /** Starts nothing any more; resolves when nothing of the subscriber's is under way. */
  stop(): Promise<void>;
}

interface Item extends Omit<Delivery, 'attempt'> {
  event: BalanceEvent;
  settle(): void;
}

interface Account {
  id: string;
  sequence: Sequence<Item>;
  /** Something of the subscriber's is under way for it, or the pause after its failure. */
  busy: boolean;
  failures: number;
  gapTimer: NodeJS.Timeout | undefined;
  /** The present gap was answered `wait` though nothing more can arrive. */
  waitsFull: boolean;
}

type Callbacks = Pick<SubscribeOptions, 'handle' | 'lastVersion' | 'onGap'>;

export function createInOrder(
  { handle, lastVersion, onGap }: Callbacks,
  limits: { concurrency: number; prefetch: number; gapTimeoutMs: number },
  report: (problem: Problem) => void,
): InOrder {
  /** Least recently met first. */
  const accounts = new Map<string, Account>();
  const behindGaps = new Set<Account>();
  const handling = createTurns<Account>(limits.concurrency);
  const lookUps = createTurns<Account>(limits.concurrency);
  const gapQuestions = createTurns<Account>(limits.concurrency);
  const stopping = new AbortController();
  let inHand = 0;
  /** Accounts that are busy, and those of them that are with onGap. */
  let working = 0;
  let asking = 0;
  /** What stop() waits for: each ends with its acknowledgement. */
  const underWay = new Set<Promise<void>>();
  /** Grows with each forget(): answers from before say nothing about now. */
  let era = 0;

  function take({ events, done, ...delivery }: EventMessage): void {
    if (stopping.signal.aborted) return;
    inHand += 1;
    let open = events.length;
    const takenIn = era;
    const settle = () => {
      open -= 1;
      if (open > 0 || takenIn !== era) return;
      inHand -= 1;
      done();
    };
    const met = new Set<Account>();
    for (const event of events) {
      const account = accountOf(event.data.accountId);
      const item: Item = { event, ...delivery, settle };
      // What is in hand may be delivered again (a consumer that was put back after a lost link between two brokers): then it is
      // the newer delivery that has to wait for the handler, and the older one is not known to the broker any more.
      const held = account.sequence.held(event.data.version);
      if (held) [held.settle, item.settle] = [item.settle, held.settle];
      if (account.sequence.offer(event.data.version, item)) met.add(account);
      else item.settle();
    }
    for (const account of met) advance(account);
    reportWhenFull();
  }

  function accountOf(id: string): Account {
    const account: Account = accounts.get(id) ?? {
      id,
      sequence: new Sequence<Item>(),
      busy: false,
      failures: 0,
      gapTimer: undefined,
      waitsFull: false,
    };
    accounts.delete(id);
    accounts.set(id, account);
    if (accounts.size > ACCOUNTS_MAX) {
      for (const old of accounts.values()) {
        if (old.busy || old.sequence.size > 0 || old === account) continue;
        accounts.delete(old.id);
        break;
      }
    }
    return account;
  }

  /** Does what can be done next for an account. */
  function advance(account: Account): void {
    if (account.busy || account.sequence.size === 0 || stopping.signal.aborted) return;
    if (!account.sequence.isStarted) lookUps.add(account, () => start(account));
    else if (account.sequence.next()) handling.add(account, () => handleNext(account));
    else if (!account.gapTimer) {
      behindGaps.add(account);
      account.gapTimer = setTimeout(() => {
        gapQuestions.add(account, () => ask(account, 'late'));
        startMore();
      }, limits.gapTimeoutMs);
    }
    startMore();
  }

  async function start(account: Account): Promise<void> {
    const askedIn = era;
    const answer = await work(account, 'last_version_failed', undefined, async () => {
      const version = await lookUps.take(() => lastVersion(account.id));
      if (version === undefined || (Number.isSafeInteger(version) && version >= UNSEEN)) return version;
      throw new TypeError('lastVersion must give a whole number, -1 where no version was handled, or undefined');
    });
    if (answer && askedIn === era) for (const item of account.sequence.start(answer.value)) item.settle();
    advance(account);
    startMore();
    reportWhenFull();
  }

  function startMore(): void {
    if (stopping.signal.aborted) return;
    for (const turns of [handling, lookUps, gapQuestions]) turns.start(track);
  }

  async function handleNext(account: Account): Promise<void> {
    const next = account.sequence.next();
    if (!next) return;
    const { event, redelivered, replayed } = next.item;
    const handled = await work(account, 'handle_failed', next.version, () =>
      handling.take(() => handle(event, { attempt: account.failures + 1, redelivered, replayed })),
    );
    if (handled) {
      closeGap(account);
      account.sequence.handled(next.version)?.settle();
    }
    advance(account);
    startMore();
    reportWhenFull();
  }

  async function ask(account: Account, why: 'late' | 'full'): Promise<void> {
    closeGap(account);
    const gap = account.sequence.gap();
    if (!gap || account.busy || stopping.signal.aborted) return;
    const isFull = isFullOfGaps();
    if (why === 'full' && !isFull) return advance(account); // there is room again
    asking += 1;
    const answer = await work(account, 'on_gap_failed', gap.firstMissing, async () => {
      const decision = await gapQuestions.take(() =>
        onGap({ accountId: account.id, ...gap, held: account.sequence.size, isFull }),
      );
      if (decision === 'skip' || decision === 'wait') return decision;
      throw new TypeError(`onGap must answer 'skip' or 'wait'`);
    });
    asking -= 1;
    if (answer?.value === 'skip') for (const item of account.sequence.skipTo(gap.lastMissing)) item.settle();
    else account.waitsFull = isFull;
    advance(account);
    startMore();
    reportWhenFull();
  }

  function closeGap(account: Account): void {
    clearTimeout(account.gapTimer);
    account.gapTimer = undefined;
    account.waitsFull = false;
    behindGaps.delete(account);
    gapQuestions.remove(account);
  }

  /** All that is in hand is held behind gaps: nothing more can arrive. */
  function isFullOfGaps(): boolean {
    return inHand >= limits.prefetch && working === asking && handling.size === 0 && lookUps.size === 0;
  }

  /** Where nothing more can arrive, waiting longer is of no use. */
  function reportWhenFull(): void {
    if (!isFullOfGaps()) return;
    for (const account of behindGaps) if (!account.waitsFull) gapQuestions.add(account, () => ask(account, 'full'));
    startMore();
  }

  function track(work: Promise<void>): void {
    underWay.add(work);
    void work.finally(() => underWay.delete(work));
  }

  /** @returns undefined when it failed, after the pause. */
  async function work<T>(
    account: Account,
    kind: Problem['kind'],
    version: number | undefined,
    call: () => Promise<T>,
  ): Promise<{ value: T } | undefined> {
    account.busy = true;
    working += 1;
    try {
      const value = await call();
      account.failures = 0;
      return { value };
    } catch (error) {
      account.failures += 1;
      const pauseMs = backOffMs(account.failures);
      const message = `${kind.replaceAll('_', ' ')}: ${error instanceof Error ? error.message : String(error)}`;
      const where = version === undefined ? {} : { version };
      report({ kind, message, error, accountId: account.id, ...where, attempt: account.failures, pauseMs });
      startMore(); // of others
      await delay(pauseMs, undefined, { signal: stopping.signal }).catch(() => {});
      return undefined;
    } finally {
      account.busy = false;
      working -= 1;
    }
  }

  return {
    take,
    forget() {
      era += 1;
      inHand = 0;
      for (const turns of [handling, lookUps, gapQuestions]) turns.clear();
      for (const account of accounts.values()) {
        closeGap(account);
        account.sequence.forget();
      }
    },
    async stop() {
      stopping.abort();
      for (const account of behindGaps) clearTimeout(account.gapTimer);
      await Promise.all(underWay);
    },
  };
}
