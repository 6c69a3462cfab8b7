// What a fault is, and what it can reach.
import { setTimeout as delay } from 'node:timers/promises';
import type { Pool } from '../../../src/shared/database.ts';
import type { Topology } from '../../../src/shared/topology.ts';
import type { DisposableBroker, DisposablePostgres } from '../../support/backends.ts';
import type { Fleet, Member } from '../fleet.ts';
import { createHttpClient } from '../http.ts';
import type { Random } from '../random.ts';
import type { Subscriber } from '../subscriber.ts';

export interface FaultContext {
  fleet: Fleet;
  /** Absent where the database is a cluster. */
  postgres?: DisposablePostgres | undefined;
  broker: DisposableBroker;
  /** Straight to the database, as superuser. */
  pool: Pool;
  topology: Topology;
  subscriber: Subscriber;
  random: Random;
  /** Written by the faults, read by the checker. */
  evidence: Evidence;
}

export interface Evidence {
  /** Each time the broker lost its disk: by account, the version up to which the subscriber had read, and the account's own. */
  wipes: { atMs: number; read: ReadonlyMap<string, number>; accepted: ReadonlyMap<string, number> }[];
  /** Each time the database was down: from its stop until it had started again. */
  stops: { startMs: number; endMs: number }[];
  /** Message ids of what the suite forged and the broker confirmed. */
  forged: { atMs: number; messageId: string }[];
  /** Promises that were broken under the eyes of a fault, such as an exit code after SIGTERM. */
  broken: string[];
  /** Events that a subscriber's queue never got although it had room again in time. */
  missed: string[];
}

/** What was in the subscriber's queue when the broker lost its disk is not missed: nobody promised that. */
export function wasWiped({ wipes }: Pick<Evidence, 'wipes'>, accountId: string, version: number): boolean {
  return wipes.some(
    ({ read, accepted }) => version > (read.get(accountId) ?? -1) && version <= (accepted.get(accountId) ?? -1),
  );
}

export interface Fault {
  name: string;
  /** Faults of one track never overlap; those of different tracks do. */
  track: 'servers' | 'processes and links';
  /**
   * Strikes, lasts, and takes itself back.
   * @returns whether it struck: a proxy may have found nothing to cut.
   */
  inject(context: FaultContext): Promise<boolean>;
}

const POLL_PAUSE_MIN_MS = 25;
/** A condition that is expensive to ask for must not be what keeps it from coming true. */
const POLL_PAUSE_FACTOR = 4;

/** Polls until the condition holds; false when it does not in time. A condition that throws does not hold yet. */
export async function holds(condition: () => Promise<boolean> | boolean, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const askedAtMs = performance.now();
    if (await Promise.resolve(condition()).catch(() => false)) return true;
    const nowMs = performance.now();
    if (nowMs > deadline) return false;
    await delay(Math.max(POLL_PAUSE_MIN_MS, POLL_PAUSE_FACTOR * (nowMs - askedAtMs)));
  }
}

export interface RelayState {
  active: boolean;
  ledger: { broker?: 'connected' | 'disconnected' | 'blocked' };
}

/** Of one API process; undefined when it does not answer. */
export async function relayOf(api: Member): Promise<RelayState | undefined> {
  const http = createHttpClient();
  try {
    const reply = await http.send(api.port, 'GET', '/readyz', { timeoutMs: 2000 });
    return reply.kind === 'answer' ? (reply.body as { relay?: RelayState }).relay : undefined;
  } finally {
    http.close();
  }
}

/** The API process whose relay is the active one. */
export async function relayOwner({ fleet }: FaultContext): Promise<Member | undefined> {
  for (const api of fleet.apis) if ((await relayOf(api))?.active) return api;
  return undefined;
}
