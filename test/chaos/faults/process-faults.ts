// Processes that die, pause, restart in turn, or whose clock jumps.
import { setTimeout as delay } from 'node:timers/promises';
import { closeConnection, connect } from '../../../src/shared/broker.ts';
import type { Member } from '../fleet.ts';
import { type Fault, type FaultContext, holds, relayOf, relayOwner } from './fault.ts';

const track = 'processes and links';
const TAKEOVER_TIMEOUT_MS = 10_000;
const CLOCK_STEP_MAX_MS = 60_000;

async function killAndRestart({ random }: FaultContext, member: Member | undefined): Promise<boolean> {
  if (!member?.isRunning) return false;
  await member.kill();
  await delay(random.between(0, 1500));
  await member.start();
  return true;
}

export const processFaults: Fault[] = [
  {
    name: 'api-kill',
    track,
    inject: (context) => killAndRestart(context, context.random.pick(context.fleet.apis)),
  },
  {
    name: 'relay-kill',
    track,
    inject: async (context) => killAndRestart(context, await relayOwner(context)),
  },
  {
    name: 'worker-kill',
    track,
    inject: (context) => killAndRestart(context, context.random.pick(context.fleet.workers)),
  },
  {
    // Long enough for others to believe that it is gone; afterwards it goes on with what it believed.
    name: 'process-pause',
    track,
    async inject({ fleet, random }) {
      const member = random.pick(fleet.members);
      if (!member.isRunning) return false;
      member.signal('SIGSTOP');
      await delay(random.between(300, 3000));
      member.signal('SIGCONT');
      return true;
    },
  },
  {
    name: 'rolling-restart',
    track,
    async inject({ fleet, evidence }) {
      for (const api of fleet.apis) {
        const exitCode = await api.terminate();
        if (exitCode !== 0)
          evidence.broken.push(`${api.name} ended with ${exitCode} after SIGTERM; its log: ${api.logFile}`);
        await api.start();
      }
      return true;
    },
  },
  {
    name: 'clock-step',
    track,
    async inject({ fleet, random }) {
      const member = random.pick(fleet.members);
      if (!member.isRunning) return false;
      member.shiftClock(random.between(-CLOCK_STEP_MAX_MS, CLOCK_STEP_MAX_MS));
      await delay(random.between(200, 1500));
      member.shiftClock(0);
      return true;
    },
  },
  {
    // The lock's connection dies, and the process that holds it is not told: for some seconds two relays are at work.
    name: 'two-relays',
    track,
    async inject(context) {
      const owner = await relayOwner(context);
      // The one with the lock is opened first.
      const lock = owner?.links.postgres.connections('highload-balance relay')[0];
      const other = context.fleet.apis.find((api) => api !== owner);
      if (!owner || !lock || !other) return false;
      lock.silence();
      const struck = await holds(
        async () => ((await relayOf(other))?.active && (await relayOf(owner))?.active) ?? false,
        TAKEOVER_TIMEOUT_MS,
      );
      await delay(1000);
      lock.cut();
      return struck;
    },
  },
  {
    // The same by a pause: the lock is taken away from a process that is asleep, and that wakes up believing it has it.
    name: 'relay-pause',
    track,
    async inject(context) {
      const { pool, fleet } = context;
      const owner = await relayOwner(context);
      const other = fleet.apis.find((api) => api !== owner);
      if (!owner || !other) return false;
      owner.signal('SIGSTOP');
      try {
        await pool.query(`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted`);
        return await holds(async () => (await relayOf(other))?.active ?? false, TAKEOVER_TIMEOUT_MS);
      } catch {
        return false; // the database is away
      } finally {
        owner.signal('SIGCONT');
      }
    },
  },
  {
    // Messages that nobody holds are purged, so the workers have to be gone for a moment.
    name: 'queue-purged',
    track,
    async inject({ fleet, broker, topology }) {
      await Promise.all(fleet.workers.map((worker) => worker.kill()));
      let purged = 0;
      try {
        const connection = await connect(broker.url, 'test');
        try {
          const channel = await connection.createChannel();
          channel.on('error', () => {});
          await holds(async () => (await channel.checkQueue(topology.ledgerQueue)).messageCount > 0, 3000);
          purged = (await channel.purgeQueue(topology.ledgerQueue)).messageCount;
        } finally {
          await closeConnection(connection);
        }
      } catch {
        // the broker is away
      } finally {
        await Promise.all(fleet.workers.map((worker) => worker.start()));
      }
      return purged > 0;
    },
  },
];
