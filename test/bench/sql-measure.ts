// The SQL function alone: batches through one connection, as a lane sends them.
import { setTimeout as delay } from 'node:timers/promises';
import { APPLY, type ApplyAnswer, parametersOf, resultsOf } from '../../src/api/updates/batch.ts';
import { fingerprintOf } from '../../src/api/updates/fingerprint.ts';
import { openClient } from '../../src/shared/database.ts';
import { verify } from '../../src/shared/verification.ts';
import { updateOperation } from '../support/harness.ts';
import { accountId, EVEN_ACCOUNTS, HOT_ACCOUNT } from './accounts.ts';
import { createDatabase } from './database.ts';
import { median } from './numbers.ts';

const BATCHES = [1, 16, 128, 1000];
const WARM_UP_MS = 300;
const TOUCHED_AT_ONCE = 1000;
const PAUSE_MS = 50;

export interface SqlRow {
  batch: number;
  accounts: 'hot' | 'even';
  keys: boolean;
  updatesPerSecond: number;
  /** Median. */
  batchMs: number;
}

/** A database each, verified afterwards. @throws when an update is not applied or the books do not add up. */
export async function measureSql(postgresUrl: string, seconds: number, tell: (row: SqlRow) => void): Promise<SqlRow[]> {
  const rows: SqlRow[] = [];
  for (const accounts of ['hot', 'even'] as const) {
    for (const keys of [false, true]) {
      for (const batch of BATCHES) {
        const row = await measureBatches(postgresUrl, { batch, accounts, keys }, seconds);
        tell(row);
        rows.push(row);
      }
    }
  }
  return rows;
}

async function measureBatches(
  postgresUrl: string,
  what: Pick<SqlRow, 'batch' | 'accounts' | 'keys'>,
  seconds: number,
): Promise<SqlRow> {
  const { batch, accounts, keys } = what;
  const database = await createDatabase(postgresUrl, { extraAccounts: 0, ledgerRows: 0, activeHolds: 0 });
  const client = await openClient(database.url, 'bench', { plans: 'fixed plans' }); // as a lane does
  let sent = 0;
  const apply = async (length = batch) => {
    const updates = Array.from({ length }, () => {
      sent += 1;
      // A step that has no factor in common with the count visits all accounts, far from each other.
      const id = accounts === 'hot' ? HOT_ACCOUNT : accountId((sent * 7919) % EVEN_ACCOUNTS);
      return updateOperation(id, 1, {
        idempotencyKey: keys ? `key-${sent}` : null,
        fingerprint: keys ? fingerprintOf('balance-update', { accountId: id, amount: 1 }) : null,
      });
    });
    const startedAtMs = performance.now();
    const { rows } = await client.query<ApplyAnswer>({ ...APPLY, values: parametersOf(updates) });
    const results = resultsOf(updates, rows[0] as ApplyAnswer);
    const elapsedMs = performance.now() - startedAtMs;
    if (results.some(({ outcome }) => outcome !== 'applied')) throw new Error('an update was not applied');
    return elapsedMs;
  };
  try {
    // Each once: a copy of a database begins an epoch, and the first change of an account in it costs more.
    for (let seen = 0; accounts === 'even' && seen < EVEN_ACCOUNTS; seen += TOUCHED_AT_ONCE)
      await apply(TOUCHED_AT_ONCE);
    for (const end = performance.now() + WARM_UP_MS; performance.now() < end; ) await apply();
    await delay(PAUSE_MS);
    const batchesMs: number[] = [];
    for (const end = performance.now() + seconds * 1000; performance.now() < end; ) batchesMs.push(await apply());
    const { offenders } = await verify(database.client);
    if (offenders.length > 0) throw new Error(`not verified: ${JSON.stringify(offenders)}`);
    const totalMs = batchesMs.reduce((sum, ms) => sum + ms, 0);
    return { ...what, updatesPerSecond: (batchesMs.length * batch * 1000) / totalMs, batchMs: median(batchesMs) };
  } finally {
    await client.end();
    await database.drop();
  }
}
