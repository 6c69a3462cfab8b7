// The clients of a run, each in an endless loop until it is stopped.
import { ACTORS, type Actor, POLICY_ACCOUNTS } from '../accounts.ts';
import type { Operation } from '../history.ts';
import { createHttpClient } from '../http.ts';
import { changePolicies, openAccounts, read } from './accounts.ts';
import { sendBulk } from './bulk.ts';
import { beCareful, sendOnce, type Work } from './careful.ts';
import { type Client, type ClientContext, operations, updates } from './client.ts';
import { holds, remember } from './holds.ts';
import { reversals } from './reversals.ts';
import { atomicBulks, transfers } from './transfers.ts';

/** How many of each kind. */
export type Crew = Record<string, { count: number; run: (client: Client) => Promise<void> }>;

/** Several hundred requests a second on two cores. */
const CREW: Crew = {
  careful: { count: 6, run: (client) => beCareful(client, { next: updates(client) }) },
  transfer: { count: 3, run: (client) => beCareful(client, transfers(client)) },
  holder: { count: 4, run: (client) => beCareful(client, holds(client)) },
  reverser: { count: 2, run: (client) => beCareful(client, reversals(client)) },
  atomic: { count: 1, run: (client) => beCareful(client, atomicBulks(client)) },
  careless: { count: 3, run: (client) => sendOnce(client, anything(client), false) },
  abandoning: { count: 2, run: (client) => sendOnce(client, anything(client), true) },
  bulk: { count: 2, run: (client) => sendBulk(client, updates(client), UPDATES_MAX) },
  'bulk-transfer': { count: 1, run: (client) => sendBulk(client, transfers(client).next, TRANSFERS_MAX) },
  reader: { count: 2, run: read },
  newcomer: { count: 2, run: openAccounts },
};
/** In one request. */
const UPDATES_MAX = 60;
const TRANSFERS_MAX = 20;

/**
 * Runs all clients; resolves when the last one has ended. A crew of its own leaves limits and
 * status as they are.
 * @returns operations whose outcome nobody could find out in time
 */
export async function runClients({ crew, ...context }: ClientContext & { crew?: Crew }): Promise<Operation[]> {
  const ofAll = { holds: [], unsettled: [] } satisfies Partial<Client>;
  async function start(name: string, number: number, run: (client: Client) => Promise<void>): Promise<void> {
    const http = createHttpClient();
    const actor = ACTORS[number % ACTORS.length] as Actor;
    try {
      await run({ ...context, ...ofAll, name, actor, http, random: context.random.fork(name) });
    } finally {
      http.close();
    }
  }
  await Promise.all([
    ...Object.entries(crew ?? CREW).flatMap(([kind, { count, run }]) =>
      Array.from({ length: count }, (_, number) => start(`${kind}-${number}`, number, run)),
    ),
    ...(crew ? [] : POLICY_ACCOUNTS).map((accountId, number) =>
      start(`policy of ${accountId}`, number, (client) => changePolicies(client, accountId)),
    ),
  ]);
  return ofAll.unsettled;
}

/** Mostly updates, and everything else. */
function anything(client: Client): Work {
  const { random } = client;
  const make = operations(client);
  const works = [transfers, holds, atomicBulks, reversals].map((work) => work(client, make));
  const next = updates(client, make);
  return {
    next: () => (random.chance(0.5) ? next() : random.pick(works).next()),
    after: (attempt) => remember(client, attempt),
  };
}
