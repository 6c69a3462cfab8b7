// Transfers, holds, captures and reversals under keys, while the processes that apply them are
// killed: each takes effect once or not at all, and money neither appears nor vanishes.
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, expect, it } from 'vitest';
import {
  type Answer,
  cleanUp,
  createBroker,
  createDatabase,
  drained,
  environmentOf,
  type Spawned,
  send,
  spawnProcess,
  startApiHere,
  startWorkerHere,
  verified,
} from '../support/harness.ts';

afterAll(cleanUp);

const RUN_MS = 6000;
const CLIENTS = 16;
const KILL_EVERY_MS = 700;
const ACCOUNTS = Array.from({ length: 8 }, (_, index) => `a${index}`);
const START = 1000;

it('keeps the sum of balances, and answers each key in one way', { timeout: 120_000 }, async () => {
  const database = await createDatabase();
  const broker = createBroker();
  const { url } = await startApiHere(database, broker); // relays, and is not killed
  await startWorkerHere(database, broker);
  for (const id of ACCOUNTS) {
    await send(url, 'POST', '/v1/accounts', { id });
    await send(url, 'POST', '/v1/balance-updates', { accountId: id, amount: START });
  }
  const processes: Spawned[] = [];
  const start = async (slot: number) => {
    processes[slot] = await spawnProcess('api', environmentOf(database, broker, { RELAY: 'off', LANES: '4' }));
  };
  await Promise.all([start(0), start(1)]);

  const end = performance.now() + RUN_MS;
  const random = (below: number) => Math.floor(Math.random() * below);
  const applied: Record<string, number> = {};
  let lost = 0;

  /** Until an answer says what became of it. */
  async function settled(path: string, body: object, key?: string): Promise<Answer> {
    for (;;) {
      const to = processes[random(2)] as Spawned;
      try {
        const answer = await send(to.url(), 'POST', path, body, key === undefined ? {} : { 'idempotency-key': key });
        if (answer.status !== 503) return answer;
      } catch {
        // The connection broke: nobody knows.
      }
      lost += 1;
      await delay(20);
    }
  }
  const count = (what: string, { status }: Answer) => {
    if (status < 300) applied[what] = (applied[what] ?? 0) + 1;
  };

  async function client(name: number): Promise<void> {
    for (let n = 0; performance.now() < end; n += 1) {
      const key = `c${name}-${n}`;
      const [from, to] = [ACCOUNTS[random(8)] as string, ACCOUNTS[random(8)] as string];
      if (from === to) continue;
      if (random(3) > 0) {
        const transfer = { from, to, amount: 1 + random(20) };
        const answer = await settled('/v1/transfers', transfer, key);
        count('transfer', answer);
        expect(await settled('/v1/transfers', transfer, key).then(({ body }) => body)).toEqual(answer.body);
        if (random(4) === 0 && answer.status === 200) {
          const reversal = { of: answer.body.transferId };
          const reversed = await settled('/v1/reversals', reversal, `${key}-r`);
          count('reversal', reversed);
          const again = await settled('/v1/reversals', reversal, `${key}-again`);
          if (reversed.status === 200) expect(again.body.code).toBe('already_reversed');
        }
      } else {
        const hold = { holdId: key, amount: 1 + random(20), expiresInSeconds: 1 + random(100) };
        const held = await settled(`/v1/accounts/${from}/holds`, hold);
        count('hold', held);
        if (held.status >= 300) continue;
        const path = `/v1/accounts/${from}/holds/${key}/capture`;
        const captured = await settled(path, { to }, `${key}-c`);
        count('capture', captured);
        const again = await settled(path, { to }, `${key}-again`);
        expect(['hold_closed', 'hold_expired']).toContain(again.body.code);
      }
    }
  }

  async function kill(): Promise<void> {
    for (let slot = 0; performance.now() < end; slot = 1 - slot) {
      await delay(KILL_EVERY_MS);
      await processes[slot]?.kill();
      await start(slot);
    }
  }
  await Promise.all([kill(), ...Array.from({ length: CLIENTS }, (_, name) => client(name))]);

  expect(lost).toBeGreaterThan(0);
  for (const what of ['transfer', 'reversal', 'hold', 'capture']) expect(applied[what], what).toBeGreaterThan(5);
  const { rows } = await database.pool.query('SELECT sum(balance) AS sum FROM account');
  expect(Number(rows[0].sum)).toBe(ACCOUNTS.length * START);
  expect(await verified(database)).toMatchObject({ offenders: [] });
  expect(await drained(database)).toMatchObject({ offenders: [] });
  const legs = await database.pool.query(`
    SELECT count(DISTINCT transfer_id) AS transfers FROM ledger WHERE transfer_id IS NOT NULL AND reverses IS NULL`);
  expect(Number(legs.rows[0].transfers)).toBe((applied.transfer ?? 0) + (applied.capture ?? 0));
});
