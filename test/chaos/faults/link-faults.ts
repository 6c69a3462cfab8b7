// Connections that break at the worst moment, stall, or close on one side only. The worst moments are found in what passes
// through a proxy: a statement on its way, its answer on its way back, a publish, a confirm, an acknowledgement.
import { setTimeout as delay } from 'node:timers/promises';
import type { Member } from '../fleet.ts';
import type { ProxiedConnection } from '../proxy.ts';
import type { Random } from '../random.ts';
import { type Fault, type FaultContext, relayOwner } from './fault.ts';

const track = 'processes and links';
/** How long a fault lies in wait for its moment. */
const WATCH_MS = 1500;
/** A publish or a batch of them; heartbeats are shorter. */
const PUBLISH_BYTES_MIN = 100;
/** ReadyForQuery, idle: behind it the transaction is over. */
const READY_FOR_QUERY = Buffer.from([0x5a, 0, 0, 0, 5, 0x49]);

const LANES = 'highload-balance api updates';
const WORKER = 'highload-balance worker';

/** Resolves when `strike` called its argument for the first time, or after the time. */
async function struckWithin(timeoutMs: number, lie: (strike: () => void) => void): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), timeoutMs);
    lie(() => {
      clearTimeout(timer);
      resolve(true);
    });
  });
}

/** The request is lost, or torn, or arrives and is alone: in no case does anybody wait for its answer. */
function cutOnRequest(connections: ProxiedConnection[], random: Random): Promise<boolean> {
  return struckWithin(WATCH_MS, (strike) => {
    for (const connection of connections) {
      connection.watch('toServer', (chunk) => {
        const passes = Math.floor(chunk.length * random.pick([0, 0.5, 1]));
        connection.send('toServer', chunk.subarray(0, passes));
        setImmediate(() => connection.cut());
        strike();
        return true;
      });
    }
  });
}

/** The statement is committed, and its answer never arrives. */
function cutAfterCommit(connections: ProxiedConnection[]): Promise<boolean> {
  return struckWithin(WATCH_MS, (strike) => {
    for (const connection of connections) {
      let isAsked = false;
      connection.watch('toServer', () => {
        isAsked = true;
        return false;
      });
      connection.watch('toClient', (chunk) => {
        if (!isAsked || !chunk.subarray(-READY_FOR_QUERY.length).equals(READY_FOR_QUERY)) return false;
        connection.cut();
        strike();
        return true;
      });
    }
  });
}

/** What goes in this direction is lost for a while although it was accepted, and then the connection breaks. */
async function deafen(
  connections: ProxiedConnection[],
  direction: 'toServer' | 'toClient',
  forMs: number,
): Promise<boolean> {
  for (const connection of connections) connection.setMode(direction, 'drop');
  await delay(forMs);
  const struck = connections.some((connection) => connection.dropped(direction) > 0);
  for (const connection of connections) connection.cut();
  return struck;
}

async function stall(connections: ProxiedConnection[], random: Random): Promise<boolean> {
  if (connections.length === 0) return false;
  const isCutInTheEnd = random.chance(0.5);
  for (const connection of connections) {
    connection.setMode('toServer', 'hold');
    connection.setMode('toClient', 'hold');
  }
  await delay(random.between(200, 5000));
  for (const connection of connections) {
    if (isCutInTheEnd) connection.cut();
    connection.setMode('toServer', 'pass');
    connection.setMode('toClient', 'pass');
  }
  return true;
}

async function halfClose(connections: ProxiedConnection[], random: Random): Promise<boolean> {
  if (connections.length === 0) return false;
  const direction = random.pick(['toServer', 'toClient'] as const);
  for (const connection of connections) connection.halfClose(direction);
  await delay(random.between(200, 1500));
  for (const connection of connections) connection.cut();
  return true;
}

const anApi = ({ fleet, random }: FaultContext) => random.pick(fleet.apis);
const aWorker = ({ fleet, random }: FaultContext) => random.pick(fleet.workers);
const lanesOf = (api: Member) => api.links.postgres.connections(LANES);

export const linkFaults: Fault[] = [
  {
    name: 'api-database-cut-before-answer',
    track,
    inject: (context) => cutOnRequest(lanesOf(anApi(context)), context.random),
  },
  {
    name: 'api-database-cut-after-commit',
    track,
    inject: (context) => cutAfterCommit(lanesOf(anApi(context))),
  },
  {
    name: 'api-database-stall',
    track,
    inject: (context) =>
      stall(anApi(context).links.postgres.connections(context.random.pick([LANES, undefined])), context.random),
  },
  {
    name: 'api-database-half-close',
    track,
    inject: (context) => halfClose(lanesOf(anApi(context)), context.random),
  },
  {
    name: 'relay-broker-cut-before-confirm',
    track,
    async inject(context) {
      const connections = (await relayOwner(context))?.links.broker.connections() ?? [];
      const published = await struckWithin(WATCH_MS, (strike) => {
        for (const connection of connections) {
          connection.watch('toServer', (chunk) => {
            if (chunk.length < PUBLISH_BYTES_MIN) return false;
            connection.setMode('toClient', 'drop');
            connection.send('toServer', chunk);
            strike();
            return true;
          });
        }
      });
      await delay(context.random.between(50, 300));
      const struck = connections.some((connection) => connection.dropped('toClient') > 0);
      for (const connection of connections) connection.cut();
      return published && struck;
    },
  },
  {
    name: 'relay-broker-cut-in-publish',
    track,
    inject: async (context) =>
      cutOnRequest((await relayOwner(context))?.links.broker.connections() ?? [], context.random),
  },
  {
    name: 'relay-broker-stall',
    track,
    inject: async (context) => stall((await relayOwner(context))?.links.broker.connections() ?? [], context.random),
  },
  {
    name: 'relay-broker-half-close',
    track,
    inject: async (context) => halfClose((await relayOwner(context))?.links.broker.connections() ?? [], context.random),
  },
  {
    name: 'worker-broker-cut-before-ack',
    track,
    inject: (context) =>
      deafen(aWorker(context).links.broker.connections(), 'toServer', context.random.between(100, 600)),
  },
  {
    name: 'worker-broker-stall',
    track,
    inject: (context) => stall(aWorker(context).links.broker.connections(), context.random),
  },
  {
    name: 'worker-broker-half-close',
    track,
    inject: (context) => halfClose(aWorker(context).links.broker.connections(), context.random),
  },
  {
    name: 'worker-database-cut-before-answer',
    track,
    inject: (context) => cutOnRequest(aWorker(context).links.postgres.connections(WORKER), context.random),
  },
  {
    name: 'worker-database-cut-after-commit',
    track,
    inject: (context) => cutAfterCommit(aWorker(context).links.postgres.connections(WORKER)),
  },
  {
    name: 'worker-database-stall',
    track,
    inject: (context) => stall(aWorker(context).links.postgres.connections(WORKER), context.random),
  },
];
