// What a client within its share gets beside others that ask for more than theirs. Part of npm run bench:overload.
import { setTimeout as delay } from 'node:timers/promises';
import { createKey } from '../../src/cli/api-keys.ts';
import { SCOPES } from '../../src/shared/api-key.ts';
import { accountId, HOT_ACCOUNT } from './accounts.ts';
import type { Bounds } from './bounds.ts';
import { createDatabase } from './database.ts';
import type { Flood, FloodResult } from './flood.ts';
import type { Greed, Greedy, GreedyResult } from './greedy.ts';
import { short, whole } from './numbers.ts';
import type { Start } from './scripts.ts';
import { type Bench, startSystem } from './system.ts';
import { ours } from './variants.ts';

const KEPT_SHARE = 0.75;
const P99_MS_MAX = 100;
const CAPACITY_CONNECTIONS = 64;
/** Of the capacity: what the one within its share sends. With a few greedy ones a fair share of the whole is more. */
const WITHIN_SHARE = 0.2;
const WITHIN_CONNECTIONS = 64;
const BULK_UPDATES = 100;
/** Entries of the history that is read. */
const ENTRIES = 10_000;
const HISTORY = accountId(0);
/** Who freezes accounts meanwhile, each so many milliseconds. */
const FREEZE_EVERY_MS = 250;
const FREEZE_MS_MAX = 1000;
const GREEDY_LEAD_MS = 1500;

interface Scene {
  name: string;
  /** Clients that are greedy in this way, and the connections of each; or abandoned requests a second. */
  greedy: readonly (readonly [greed: Greed, clients: number, connections: number])[];
  /** Of the one within its share: single updates, or bulk requests. */
  asks: 'singles' | 'bulk';
}

const SCENES: readonly Scene[] = [
  {
    name: '1,500 abandoned pages a second and 64 connections that read on',
    asks: 'singles',
    greedy: [
      ['abandoned', 1, 1500],
      ['pages', 1, 64],
    ],
  },
  { name: '48 connections of bulks of 1,000', asks: 'singles', greedy: [['bulk', 1, 48]] },
  { name: 'three clients, each with 16 connections of bulks of 1,000', asks: 'singles', greedy: [['bulk', 3, 16]] },
  {
    name: 'three clients, each with 100 connections of single updates',
    asks: 'singles',
    greedy: [['singles', 3, 100]],
  },
  { name: '48 connections of bulks of 1,000', asks: 'bulk', greedy: [['bulk', 1, 48]] },
  { name: '40 unfinished bodies of 2 MB', asks: 'bulk', greedy: [['unfinished', 1, 40]] },
];

export async function measureShares(bench: Bench, start: Start, { judge }: Bounds, seconds: number): Promise<void> {
  const variant = ours();
  const database = await createDatabase(bench.servers.postgres.url, variant);
  await database.client.query(
    `INSERT INTO ledger (account_id, version, epoch, previous_epoch, amount, held_change, balance, held, created_at, type, asset)
     SELECT account_id, number, epoch, epoch, 1, 0, number, 0, updated_at, 'balance.credited', asset
     FROM account CROSS JOIN generate_series(1, $2::integer) AS number WHERE account_id = $1`,
    [HISTORY, ENTRIES],
  );
  await database.client.query('UPDATE account SET balance = $2, version = $2 WHERE account_id = $1', [
    HISTORY,
    ENTRIES,
  ]);
  const tokens = new Map<string, string>();
  const tokenOf = async (actor: string) => {
    const known = tokens.get(actor) ?? (await createKey(database.client, { actor, scopes: SCOPES })).token;
    tokens.set(actor, known);
    return known;
  };
  const system = await startSystem(bench, database, variant, [], { AUTH: 'required' });

  async function flood(rate: number, connections: number, updates?: number): Promise<FloodResult> {
    const options: Flood = {
      ...{ url: system.url, accountId: HOT_ACCOUNT, seconds, rate, connections, updates },
      token: await tokenOf('within'),
    };
    return (await start('flood.ts', JSON.stringify(options)).result) as FloodResult;
  }

  async function greedy(greed: Greed, client: number, connections: number): Promise<GreedyResult> {
    const options: Greedy = {
      ...{ greed, url: system.url, connections, seconds: seconds + (2 * GREEDY_LEAD_MS) / 1000 },
      accountId: greed === 'singles' || greed === 'bulk' ? accountId(client + 1) : HISTORY,
      token: await tokenOf(`greedy-${client}`),
    };
    return (await start('greedy.ts', JSON.stringify(options)).result) as GreedyResult;
  }

  /** @returns how long each took that was answered 200; Infinity for others. */
  async function freezeAccounts(until: Promise<unknown>): Promise<number[]> {
    const authorization = `Bearer ${await tokenOf('operator')}`;
    const took: number[] = [];
    let isOver = false;
    until.finally(() => (isOver = true));
    for (let index = 0; !isOver; index += 1) {
      const startedAtMs = performance.now();
      const body = JSON.stringify({ status: index % 2 === 0 ? 'frozen' : 'open' });
      const answer = await fetch(`${system.url}/v1/accounts/${accountId(5000)}`, {
        ...{ method: 'PATCH', body, headers: { authorization, 'content-type': 'application/json' } },
        signal: AbortSignal.timeout(10 * FREEZE_MS_MAX),
      }).catch(() => undefined);
      await answer?.text().catch(() => {});
      took.push(answer?.status === 200 ? performance.now() - startedAtMs : Number.POSITIVE_INFINITY);
      await delay(FREEZE_EVERY_MS);
    }
    return took;
  }

  async function measure({ name, greedy: greeds, asks }: Scene, rate: number, alone: FloodResult): Promise<void> {
    let client = 0;
    const others = greeds.flatMap(([greed, clients, connections]) =>
      Array.from({ length: clients }, () => greedy(greed, client++, connections)),
    );
    const all = Promise.all(others);
    await delay(GREEDY_LEAD_MS);
    const within = flood(rate, WITHIN_CONNECTIONS, asks === 'bulk' ? BULK_UPDATES : undefined);
    const [beside, freezing] = await Promise.all([within, freezeAccounts(within)]);
    const share = beside.accepted / alone.accepted;
    const what = asks === 'bulk' ? `bulks of ${BULK_UPDATES}` : 'updates';
    judge(
      `${what} of another client beside ${name}`,
      `${whole(100 * share)} % of ${whole(alone.accepted / seconds)}/s, ${beside.refused} refused; p99 ${short(beside.acceptedP99Ms)} ms, alone ${short(alone.acceptedP99Ms)} ms`,
      `≥ ${whole(100 * KEPT_SHARE)} %; p99 ≤ ${P99_MS_MAX} ms`,
      share >= KEPT_SHARE && beside.acceptedP99Ms <= P99_MS_MAX,
    );
    judge(
      `accounts frozen beside ${name}`,
      `${freezing.length}, the longest ${short(Math.max(...freezing))} ms`,
      `all, ≤ ${FREEZE_MS_MAX} ms`,
      Math.max(...freezing) <= FREEZE_MS_MAX,
    );
    const answers = (await all).map((one) =>
      Object.entries(one.answers).map(([status, count]) => `${whole(count)} × ${status}`),
    );
    console.log(`       the others got ${answers.map((one) => one.join(', ') || 'nothing').join('; ')}`);
    await delay(GREEDY_LEAD_MS);
  }

  try {
    await flood(0, CAPACITY_CONNECTIONS); // warm
    const capacity = (await flood(0, CAPACITY_CONNECTIONS)).accepted / seconds;
    const rates = { singles: WITHIN_SHARE * capacity, bulk: (WITHIN_SHARE * capacity) / BULK_UPDATES };
    const alone = {
      singles: await flood(rates.singles, WITHIN_CONNECTIONS),
      bulk: await flood(rates.bulk, WITHIN_CONNECTIONS, BULK_UPDATES),
    };
    console.log(`Capacity with API keys: ${whole(capacity)}/s; within its share: ${whole(rates.singles)}/s`);
    for (const scene of SCENES) await measure(scene, rates[scene.asks], alone[scene.asks]);
    if (!system.complete()) throw new Error('a process ended by itself');
  } finally {
    await system.end();
    await database.drop();
  }
}
