// Deals out faults until told to stop. Each track is a deck that is shuffled and dealt in full before any fault comes
// again; a fault that found nothing to strike goes back into the deck. Tracks run beside each other, so faults overlap.
import { setTimeout as delay } from 'node:timers/promises';
import type { Fault, FaultContext } from './faults/fault.ts';
import { now } from './history.ts';

export interface Injection {
  fault: string;
  startMs: number;
  endMs: number;
  struck: boolean;
}

export function strikesOf(timeline: readonly Injection[], fault: string): number {
  return timeline.filter((injection) => injection.fault === fault && injection.struck).length;
}

/** Above the time limits inside the faults: a fault that takes longer is a defect of the suite or a server that is gone. */
const FAULT_TIMEOUT_MS = 240_000;
const GAP_MAX_MS = 800;

/**
 * @param timeline every injection is added to it.
 * @param isOver asked before each fault of a track.
 * @throws when a fault cannot take itself back, such as a server that does not start again.
 */
export async function injectFaults(
  context: FaultContext,
  faults: readonly Fault[],
  timeline: Injection[],
  isOver: (track: string) => boolean,
): Promise<void> {
  const tracks = new Map<string, Fault[]>();
  for (const fault of faults) tracks.set(fault.track, [...(tracks.get(fault.track) ?? []), fault]);
  let failed = false;
  await Promise.all(
    [...tracks].map(async ([track, ofTrack]) => {
      const random = context.random.fork(track);
      const own = { ...context, random };
      let deck: Fault[] = [];
      while (!isOver(track) && !failed) {
        if (deck.length === 0) deck = random.shuffled(ofTrack);
        const fault = deck.shift() as Fault;
        try {
          const injection = await inject(own, fault);
          timeline.push(injection);
          if (!injection.struck) deck.splice(random.between(Math.min(1, deck.length), deck.length), 0, fault);
        } catch (error) {
          failed = true;
          throw new Error(`the fault ${fault.name} could not be taken back: ${(error as Error).message}`, {
            cause: error,
          });
        }
        await delay(random.between(0, GAP_MAX_MS));
      }
    }),
  );
}

async function inject(context: FaultContext, fault: Fault): Promise<Injection> {
  const startMs = now();
  const timeout = new AbortController();
  const late = delay(FAULT_TIMEOUT_MS, undefined, { signal: timeout.signal }).then(() => {
    throw new Error(`it takes longer than ${FAULT_TIMEOUT_MS} ms`);
  });
  late.catch(() => {});
  try {
    const struck = await Promise.race([fault.inject(context), late]);
    return { fault: fault.name, startMs, endMs: now(), struck };
  } finally {
    timeout.abort();
  }
}
