// What the ledger costs its writer: changes that the API accepted, recorded by the statement of the worker and hashed by its
// step. In one connection, without a broker, so that nothing but the size of the ledger differs between two databases.
import { APPLY, parametersOf } from '../../src/api/updates/batch.ts';
import type { Leg, Operation } from '../../src/api/updates/operation.ts';
import { type Change, SELECT_CHANGE } from '../../src/shared/change.ts';
import { createPool } from '../../src/shared/database.ts';
import { recordChanges } from '../../src/worker/ledger.ts';
import { busyId, quietId } from './years-fill.ts';

/** As the worker records them: BATCH_ROWS_MAX. */
const BATCH = 500;
/** As the worker hashes them, see chainer.ts. */
const STEP = { entries: 10_000, accounts: 5000 };
const BUSY_SHARE = 0.1;
const TRANSFER_SHARE = 0.2;

/** The same every time. */
function drawer(seed: number): () => number {
  let state = BigInt(seed);
  return () => {
    state = (state * 25_214_903_917n + 11n) & ((1n << 48n) - 1n);
    return Number(state) / 2 ** 48;
  };
}

function leg(accountId: string, amount: number, reference: string | null): Leg {
  return { accountId, amount, reference, metadata: null, expectedVersion: null, upTo: false };
}

function operations(count: number, quietAccounts: number, random: () => number): Operation[] {
  const account = () => (random() < BUSY_SHARE ? busyId(0) : quietId(Math.floor(random() * quietAccounts)));
  const common = { idempotencyKey: null, fingerprint: null, actor: 'shop', traceparent: null };
  return Array.from({ length: count }, (_, index): Operation => {
    const from = account();
    const to = account();
    if (random() < TRANSFER_SHARE && from !== to)
      return { ...common, kind: 'transfer', legs: [leg(from, -1, null), leg(to, 1, null)], keyAccountId: from };
    return { ...common, kind: 'update', legs: [leg(from, 1, `order ${index}`)], keyAccountId: from };
  });
}

export interface WriteRates {
  /** Entries a second. */
  recorded: number;
  hashed: number;
  /** What an entry adds to the write-ahead log, right after a checkpoint. */
  recordedWalBytes: number;
  hashedWalBytes: number;
}

/** Leaves the outbox empty, as the relay does in the end. */
export async function measureWrites(
  url: string,
  quietAccounts: number,
  count: number,
  seed: number,
): Promise<WriteRates> {
  const pool = createPool(url, 'bench', 1, 0);
  try {
    const due = operations(count, quietAccounts, drawer(seed));
    for (let first = 0; first < due.length; first += BATCH)
      await pool.query({ ...APPLY, values: parametersOf(due.slice(first, first + BATCH)) });
    const { rows: changes } = await pool.query<Change>(`SELECT ${SELECT_CHANGE} FROM outbox ORDER BY position`);
    await pool.query('CHECKPOINT');
    const walBefore = await walBytes();
    const recordMs = await milliseconds(async () => {
      for (let first = 0; first < changes.length; first += BATCH) {
        const verdicts = await recordChanges(pool, changes.slice(first, first + BATCH));
        if (verdicts.some((verdict) => verdict !== 'recorded')) throw new Error('not recorded');
      }
    });
    const recordWal = (await walBytes()) - walBefore;
    const accounts = [...new Set(changes.map(({ accountId }) => accountId))];
    const hashMs = await milliseconds(() => hashAll(accounts));
    await pool.query('TRUNCATE outbox');
    return {
      recorded: (1000 * changes.length) / recordMs,
      hashed: (1000 * changes.length) / hashMs,
      recordedWalBytes: recordWal / changes.length,
      hashedWalBytes: ((await walBytes()) - walBefore - recordWal) / changes.length,
    };
  } finally {
    await pool.end();
  }

  async function walBytes(): Promise<number> {
    return (await pool.query(`SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 AS bytes`)).rows[0]
      .bytes;
  }

  async function hashAll(accounts: readonly string[]): Promise<void> {
    const text = 'SELECT hashed, unfinished FROM extend_ledger_chain($1, $2)';
    for (let first = 0; first < accounts.length; first += STEP.accounts) {
      let waiting = accounts.slice(first, first + STEP.accounts);
      while (waiting.length > 0)
        waiting = (await pool.query({ name: 'extend', text, values: [waiting, STEP.entries] })).rows[0].unfinished;
    }
  }
}

async function milliseconds(work: () => Promise<unknown>): Promise<number> {
  const startedAtMs = performance.now();
  await work();
  return performance.now() - startedAtMs;
}
