// What is measured: who serves, which accounts, how many connections, with or without keys, and when events move.

export interface Variant {
  /**
   * - ceiling: our HTTP layer without a database
   * - usual: one UPDATE a request, no event, no ledger
   * - contract: UPDATE and outbox row in one statement a request; our relay and worker
   * - this: this service
   */
  service: 'ceiling' | 'usual' | 'contract' | 'this';
  /**
   * - update: a credit
   * - transfer: an even account pays another, or the hot one
   * - payout: the hot account pays an even one
   * - hold: of the hot account, and later its capture; the two count as one
   */
  operation: 'update' | 'transfer' | 'payout' | 'hold';
  accounts: 'hot' | 'even' | 'zipf';
  connections: number;
  /** 1 is the single operation; more is bulk. */
  operationsPerRequest: number;
  /** An idempotency key for each update. */
  keys: boolean;
  /**
   * - none: there are no events
   * - running: relay and worker move events during the load
   * - deferred: they start after it; `drain` says whether the run waits for them
   */
  pipeline: 'none' | 'running' | 'deferred';
  drain: boolean;
  eventsPerMessage: number;
  /** A subscriber is bound, and reads. */
  subscriber: boolean;
  /** The relay runs as a process of its own. */
  relayApart: boolean;
  /**
   * Held open by another session during the load:
   * - snapshot: an idle REPEATABLE READ transaction
   * - dump: the same with share locks on all tables, as pg_dump takes them
   * - write: a transaction that has written to an unrelated table
   */
  hold: 'nothing' | 'snapshot' | 'dump' | 'write';
  /** Share of the requests that is traced, 0 to 1, where traces are on. */
  traced: number | undefined;
  /** Holds of the hot account that are active all the time. */
  activeHolds: number;
  /** Two more connections send bulk requests of 2,000 legs all the time. */
  besideBulk: boolean;
  /** Longer or shorter than the rest. */
  loadFactor: number;
  /** For measuring how cost grows: accounts, where it is not 10,000, and entries that the ledger has before. */
  extraAccounts: number;
  ledgerRows: number;
  /** Of the requests, for the one hot account; the rest is even. Undefined: as `accounts` says. */
  hotShare: number | undefined;
}

const DEFAULTS: Variant = {
  service: 'this',
  operation: 'update',
  accounts: 'hot',
  connections: 64,
  operationsPerRequest: 1,
  keys: false,
  pipeline: 'running',
  drain: true,
  eventsPerMessage: 1,
  subscriber: false,
  relayApart: false,
  hold: 'nothing',
  traced: undefined,
  activeHolds: 0,
  besideBulk: false,
  loadFactor: 1,
  extraAccounts: 0,
  ledgerRows: 0,
  hotShare: undefined,
};

export const ours = (more: Partial<Variant> = {}): Variant => ({ ...DEFAULTS, ...more });
export const usual = (more: Partial<Variant> = {}): Variant =>
  ours({ service: 'usual', pipeline: 'none', drain: false, ...more });
export const contract = (more: Partial<Variant> = {}): Variant => ours({ service: 'contract', ...more });
export const ceiling = (more: Partial<Variant> = {}): Variant => usual({ service: 'ceiling', ...more });

/** Name of a variant: equal for equal ones. */
export function nameOf(variant: Variant): string {
  const { accounts, connections, operationsPerRequest, keys, pipeline, eventsPerMessage, hold, extraAccounts } =
    variant;
  const { service, operation, ledgerRows, hotShare, traced, activeHolds, besideBulk, subscriber, relayApart } = variant;
  const parts = [
    { ceiling: 'ceiling', usual: 'usual', contract: 'usual, same contract', this: 'this' }[service],
    { update: false, transfer: 'transfers', payout: 'payouts', hold: 'hold and capture' }[operation],
    operationsPerRequest > 1 && `bulk of ${operationsPerRequest.toLocaleString('en')}`,
    hotShare === undefined
      ? { hot: 'hot', even: `${(extraAccounts || 10_000).toLocaleString('en')} even`, zipf: 'Zipf' }[accounts]
      : `${hotShare * 100} % hot`,
    keys && 'keys',
    `${connections} conn.`,
    pipeline === 'running' && 'pipeline running',
    pipeline === 'deferred' && 'relay deferred',
    pipeline !== 'none' && eventsPerMessage > 1 && `${eventsPerMessage} events a message`,
    subscriber && 'a subscriber',
    relayApart && 'relay apart',
    hold === 'snapshot' && 'snapshot held',
    hold === 'dump' && 'pg_dump held',
    hold === 'write' && 'write transaction held',
    traced !== undefined && `${traced * 100} % traced`,
    activeHolds > 0 && `${activeHolds.toLocaleString('en')} active holds`,
    besideBulk && 'beside bulk of 2,000 legs',
    ledgerRows > 0 && `ledger of ${ledgerRows.toLocaleString('en')}`,
  ];
  return parts.filter(Boolean).join(' · ');
}

const deferred = (more: Partial<Variant> = {}) => ours({ pipeline: 'deferred', drain: false, ...more });

const transfers = (more: Partial<Variant> = {}) => deferred({ operation: 'transfer', ...more });
const BULK_OF_100 = { operationsPerRequest: 100, connections: 16 };

/** The ones that the targets are about. */
export const measured = {
  ceiling: ceiling(),
  usualHot: usual(),
  usualEven: usual({ accounts: 'even' }),
  usualLone: usual({ connections: 1 }),
  contractHot: contract(),
  hotDeferred: deferred(),
  hotRunning: ours({ loadFactor: 5 }), // long enough that nothing can wait until the load is over
  hotSubscriber: ours({ subscriber: true }),
  hotSubscriberKeys: ours({ subscriber: true, keys: true }),
  hotSubscriberBatched: ours({ subscriber: true, eventsPerMessage: 100 }),
  hotRelayApart: ours({ relayApart: true }),
  hotBatchedEvents: ours({ eventsPerMessage: 100 }),
  hotSnapshot: ours({ hold: 'snapshot' }),
  hotWriteHeld: ours({ hold: 'write' }),
  hotDump: ours({ hold: 'dump', loadFactor: 3 }),
  evenDeferred: deferred({ accounts: 'even' }),
  evenRunning: ours({ accounts: 'even' }),
  loneDeferred: deferred({ connections: 1 }),
  loneRunning: ours({ connections: 1 }),
  bulk: deferred({ operationsPerRequest: 1000, connections: 8, drain: true, loadFactor: 0.5 }),
  bulkKeys: deferred({
    ...{ operationsPerRequest: 1000, connections: 8, keys: true, drain: true },
    ...{ eventsPerMessage: 100, loadFactor: 0.5 },
  }),
  usualTransfersHot: usual({ operation: 'transfer' }),
  transfersHot: transfers(),
  payoutsHot: transfers({ operation: 'payout' }),
  transfersEven: transfers({ accounts: 'even' }),
  holds: deferred({ operation: 'hold' }),
  hotWithHolds: deferred({ activeHolds: 10_000 }),
  evenBesideBulk: deferred({ accounts: 'even', besideBulk: true }),
  bulk100Hot: deferred(BULK_OF_100),
  bulk100Even: deferred({ ...BULK_OF_100, accounts: 'even' }),
  bulkTransfersHot: transfers(BULK_OF_100),
  bulkTransfersEven: transfers({ ...BULK_OF_100, accounts: 'even' }),
};

export interface Planned {
  variant: Variant;
  /** Rounds in which it runs. */
  rounds: number;
}

/** The variants of the targets: those that are compared in all rounds, the others once. */
export function quickPlan(rounds: number): Planned[] {
  const once: Variant[] = [measured.hotWriteHeld, measured.hotDump];
  return Object.values(measured).map((variant) => ({ variant, rounds: once.includes(variant) ? 1 : rounds }));
}

/** Everything: the targets' variants in all rounds, the rest once. */
export function fullPlan(rounds: number): Planned[] {
  const allAccounts = ['hot', 'even', 'zipf'] as const;
  const otherConnections = [16, 256];
  const rest: Variant[] = [
    ...otherConnections.flatMap((connections) => [
      ceiling({ connections }),
      usual({ connections }),
      deferred({ connections }),
      ours({ connections }),
    ]),
    usual({ accounts: 'zipf' }),
    ...(['even', 'zipf'] as const).map((accounts) => contract({ accounts })),
    ...allAccounts.flatMap((accounts) =>
      [false, true].flatMap((keys) => [deferred({ accounts, keys, drain: true }), ours({ accounts, keys })]),
    ),
    ours({ accounts: 'even', eventsPerMessage: 100 }),
    ...allAccounts.flatMap((accounts) =>
      [false, true].flatMap((keys) => [
        deferred({ accounts, keys, operationsPerRequest: 100, connections: 16 }),
        deferred({ accounts, keys, operationsPerRequest: 1000, connections: 8 }),
      ]),
    ),
    ours({ operationsPerRequest: 100, connections: 16, eventsPerMessage: 100 }),
    ours({ operationsPerRequest: 1000, connections: 8, eventsPerMessage: 100 }),
    ...[0, 0.01, 1].map((traced) => ours({ traced })),
  ];
  const already = new Set(Object.values(measured).map(nameOf));
  return [
    ...quickPlan(rounds),
    ...rest.filter((variant) => !already.has(nameOf(variant))).map((variant) => ({ variant, rounds: 1 })),
  ];
}

/** How cost grows, a series each: the value on the axis and the variant. */
export function growthSeries(): Record<string, { title: string; points: [number, Variant][] }> {
  return {
    accounts: {
      title: 'accounts (even updates)',
      points: [1_000, 10_000, 100_000, 1_000_000].map((extraAccounts) => [
        extraAccounts,
        deferred({ accounts: 'even', extraAccounts }),
      ]),
    },
    ledgerRows: {
      title: 'ledger rows (even updates, pipeline running)',
      points: [100_000, 1_000_000, 10_000_000].map((ledgerRows) => [
        ledgerRows,
        ours({ accounts: 'even', ledgerRows }),
      ]),
    },
    hotShare: {
      title: 'share of updates to one hot account, %',
      points: [0, 0.25, 0.5, 0.75, 1].map((hotShare) => [hotShare * 100, deferred({ hotShare })]),
    },
    hotShareUsual: {
      title: 'the same, usual',
      points: [0, 0.25, 0.5, 0.75, 1].map((hotShare) => [hotShare * 100, usual({ hotShare })]),
    },
  };
}
