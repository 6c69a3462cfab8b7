// The runbooks that move a running system to another server, where nothing may be lost.
import { afterEach, expect, it } from 'vitest';
import { noteMissedRange } from '../../src/api/relay/missed.ts';
import { openClient } from '../../src/shared/database.ts';
import { cleanUp } from '../support/harness.ts';
import { ENTRIES_OF_OPENING, entriesOf, expectSameAnswers, type Sent, startTraffic } from '../support/traffic.ts';
import {
  ACCOUNTS,
  type Arranged,
  arrange,
  expectNoErrors,
  expectVerified,
  missingIn,
  settled,
  startNewServer,
} from './arrange.ts';
import { openRunbook } from './runbook.ts';
import { PASSWORD } from './system.ts';

afterEach(cleanUp);

const READ_ONLY = { code: '25006' };

/** Clients send all the time, and retry what they do not know. */
async function move(
  title: string,
  arranged: Arranged,
  target: string,
  switchOverAt: number,
  already: readonly Sent[] = [],
): Promise<string> {
  const { server, system, shell, billing } = arranged;
  const values = { OLD: server.url, NEW: target, OWNER_PASSWORD: PASSWORD };
  const runbook = openRunbook(system, shell, title, values);
  const traffic = startTraffic(() => system.url, ACCOUNTS);
  await traffic.more('on the old server');
  let printed = await runbook.through(switchOverAt - 1);
  if (switchOverAt > 1) await traffic.more('while it is copied');
  const before = traffic.done.slice(-40);
  printed += await runbook.rest();
  await traffic.more('on the new server');
  await traffic.end();

  const pool = await settled(arranged);
  expect(traffic.refused).toEqual([]);
  expect(await missingIn(pool, traffic.done)).toEqual([]);
  const entries = await pool.query('SELECT count(*) AS count FROM ledger');
  expect(entries.rows[0].count).toBe(ACCOUNTS.length * ENTRIES_OF_OPENING + entriesOf([...already, ...traffic.done]));
  await expectSameAnswers(system.url, before);
  await expectVerified(shell);
  expect(billing.said()).toBe('');
  expectNoErrors(system);
  // A process that still had the old address could change nothing.
  const old = await openClient(`${server.url}/balance`, 'test', { access: 'any server' });
  await expect(old.query(`SELECT open_account('late', 'UNIT', 0, NULL, NULL, NULL)`)).rejects.toMatchObject(READ_ONLY);
  await old.end();
  return printed;
}

it('Move with pg_dump', async () => {
  const arranged = await arrange();
  await arranged.server.query('balance', 'CREATE PUBLICATION of_others FOR ALL TABLES');
  const printed = await move('Move with pg_dump', arranged, await startNewServer(arranged.place), 1);
  expect(printed).toContain('repaired: lost: INSERT to balance_worker on ledger, ledger_chain: granted again');
  expect(printed).toMatch(/kept heads that are not in the chains +0\n.*verified\n/s);
});

it('Move with logical replication', async () => {
  const arranged = await arrange({ wal_level: 'logical' });
  const { system } = arranged;
  // Every table has rows that change: sequences that stay behind would repeat a number.
  const note = (pool: Parameters<typeof noteMissedRange>[0]) => noteMissedRange(pool, 0, 10);
  const before = system.openDatabase();
  await before.query(`INSERT INTO missed (first_position, first_created_at, delivered_at) VALUES (1, now(), now())`);
  const printed = await move('Move with logical replication', arranged, await startNewServer(arranged.place), 5);
  expect(printed).toContain('repaired: outbox_position would have repeated positions');
  expect(printed).toContain('repaired: missed_missed_id_seq would have repeated numbers of missed');
  expect(printed).toMatch(/kept heads that are not in the chains +0\n.*verified\n/s);
  await note(system.openDatabase() as never);
});

it('Move back', async () => {
  const arranged = await arrange({ wal_level: 'logical' });
  const { server, system, shell, place } = arranged;
  const target = await startNewServer(place);
  const values = { OLD: server.url, NEW: target, OWNER_PASSWORD: PASSWORD };
  const traffic = startTraffic(() => system.url, ACCOUNTS);
  for (const [title, last] of [
    ['Move with logical replication', 6],
    ['Move with pg_dump', 5],
  ] as const) {
    await openRunbook(system, shell, title, values).through(last);
    await openRunbook(system, shell, 'Move back', values).rest();
    await traffic.more('on the old server');
  }
  await traffic.end();
  expect(traffic.refused).toEqual([]);
  expect(await missingIn(await settled(arranged), traffic.done)).toEqual([]);
  const left = await system.openDatabase().query(`
    SELECT slot_name AS name FROM pg_replication_slots UNION ALL SELECT pubname FROM pg_publication`);
  expect(left.rows).toEqual([]);
  await move('Move with logical replication', arranged, target, 5, traffic.done);
});
