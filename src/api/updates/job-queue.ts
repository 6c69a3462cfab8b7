// Operations that wait in a lane, by client. While all fit into the next batch, they are sent in
// order; otherwise clients take turns by legs (surplus round robin), so that a client that sends
// little does not wait for one that sends much, and finds room even in a full queue.
import type { Operation, OperationResult } from './operation.ts';

export interface Job {
  operation: Operation;
  submittedAtMs: number;
  resolve(result: OperationResult): void;
}

/** What waits of one client, first in, first out. */
interface ClientJobs {
  client: string;
  jobs: Job[];
  /** Of the first that was not taken. */
  next: number;
  legs: number;
  /** Legs that it may still take in this round; below 0 where its last operation had more. */
  credit: number;
}

export class JobQueue {
  legs = 0;
  #clients = new Map<string, ClientJobs>();
  /** The same, in the order of their turns. */
  #ring: ClientJobs[] = [];

  /** Clients that wait. */
  get clients(): number {
    return this.#ring.length;
  }

  legsOf(client: string): number {
    return this.#clients.get(client)?.legs ?? 0;
  }

  /** How long the first of a client has waited; 0 where none waits. */
  waitedMs(client: string, nowMs: number): number {
    const own = this.#clients.get(client);
    return own ? nowMs - (own.jobs[own.next] as Job).submittedAtMs : 0;
  }

  /**
   * Takes the newest of the client that has the most, for another that wants so many more: it must
   * not have as many with them. Undefined if no client has to make room for it.
   */
  pushOut(client: string, legs: number): Job | undefined {
    let most: ClientJobs | undefined;
    for (const one of this.#ring) if (one.legs > (most?.legs ?? 0)) most = one;
    if (most === undefined || most.legs <= this.legsOf(client) + legs) return undefined;
    const job = most.jobs.pop() as Job;
    most.legs -= job.operation.legs.length;
    this.legs -= job.operation.legs.length;
    if (most.next === most.jobs.length) {
      this.#ring.splice(this.#ring.indexOf(most), 1);
      this.#clients.delete(most.client);
    }
    return job;
  }

  push(client: string, job: Job): void {
    const legs = job.operation.legs.length;
    this.legs += legs;
    const own = this.#clients.get(client);
    if (own) {
      own.jobs.push(job);
      own.legs += legs;
      return;
    }
    const first = { client, jobs: [job], next: 0, legs, credit: 0 };
    this.#clients.set(client, first);
    this.#ring.push(first);
  }

  /**
   * As many as have at most so many legs together, or one alone that has more. Those of a client
   * keep their order.
   */
  take(legsMax = Number.POSITIVE_INFINITY): Job[] {
    if (legsMax <= 0 || this.legs === 0) return [];
    if (this.legs <= legsMax) return this.#takeAll();
    const quantum = Math.ceil(legsMax / this.#ring.length);
    const batch: Job[] = [];
    let room = legsMax;
    while (room > 0) {
      const [own] = this.#ring as [ClientJobs];
      if (own.credit <= 0) own.credit += quantum;
      while (own.credit > 0 && own.next < own.jobs.length) {
        const job = own.jobs[own.next] as Job;
        const legs = job.operation.legs.length;
        if (legs > room && batch.length > 0) {
          room = 0; // it is first in the next batch
          break;
        }
        batch.push(job);
        own.next += 1;
        own.legs -= legs;
        own.credit -= legs;
        this.legs -= legs;
        room -= legs;
        if (room <= 0) break;
      }
      this.#endTurn(own);
    }
    return batch;
  }

  #takeAll(): Job[] {
    const [first] = this.#ring as [ClientJobs];
    const jobs =
      this.#ring.length === 1 && first.next === 0
        ? first.jobs
        : this.#ring.flatMap((own) => (own.next === 0 ? own.jobs : own.jobs.slice(own.next)));
    // clear() would link the old one to the new: docs/decisions/031-garbage-in-chains.md.
    this.#clients = new Map();
    this.#ring = [];
    this.legs = 0;
    return jobs;
  }

  /**
   * The first of the ring has taken what it may for now: it stays there only where the batch is
   * full before that.
   */
  #endTurn(own: ClientJobs): void {
    if (own.next === own.jobs.length) {
      this.#ring.shift();
      this.#clients.delete(own.client);
      return;
    }
    if (2 * own.next > own.jobs.length) {
      own.jobs = own.jobs.slice(own.next);
      own.next = 0;
    }
    if (own.credit <= 0) this.#ring.push(this.#ring.shift() as ClientJobs);
  }
}
