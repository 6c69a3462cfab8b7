// A track beside a broker that confirms only when the test says so.
import { EventEmitter } from 'node:events';
import type { ChannelModel } from 'amqplib';
import { expect, it } from 'vitest';
import { AFTER_ALL, type OutboxRow } from '../../src/api/relay/outbox.ts';
import type { OutboxCursor } from '../../src/api/relay/outbox-cursor.ts';
import type { OutboxReader } from '../../src/api/relay/outbox-reader.ts';
import { Track } from '../../src/api/relay/track.ts';
import type { BrokerSession } from '../../src/shared/broker.ts';
import type { Pool } from '../../src/shared/database.ts';
import { createLogger } from '../../src/shared/logging.ts';
import { topologyOf } from '../../src/shared/topology.ts';
import { until } from '../support/harness.ts';

const ROWS = 3000;

/** One page of ROWS rows, and then none. */
const reader = {
  rowsMax: ROWS,
  async next(from: OutboxCursor) {
    const first = from.behind + 1;
    const page = Array.from({ length: Math.max(0, ROWS - from.behind) }, (_, index) => rowAt(first + index));
    return { page, cursor: from.advance(page, AFTER_ALL), isFull: false, readAtMs: performance.now() };
  },
} as unknown as OutboxReader;

const rowAt = (position: number) =>
  ({
    accountId: 'a',
    version: position,
    epoch: 1,
    position,
    type: 'balance.credited',
    createdAt: new Date(),
    event: '{}',
    traceparent: null,
  }) as OutboxRow;

/** Answers what is owed. */
const database = {
  async query({ values: [, firsts, lasts, limit] }: { values: [number, number[], number[], number] }) {
    const positions = firsts
      .flatMap((first, index) =>
        Array.from({ length: (lasts[index] as number) - first + 1 }, (_, more) => first + more),
      )
      .slice(0, limit);
    const each = (value: unknown) => positions.map(() => value);
    return {
      rows: [
        {
          position: positions,
          version: positions,
          account_id: each('a'),
          epoch: each(1),
          created_at: each(new Date().toISOString()),
        },
      ],
    };
  },
} as unknown as Pool;

function startSession(track: Track) {
  const over = new AbortController();
  const waiting: ((error: unknown) => void)[] = [];
  const channel = Object.assign(new EventEmitter(), {
    publish: (...given: unknown[]) => waiting.push(given.at(-1) as (typeof waiting)[number]),
    assertExchange: async () => {},
    assertQueue: async () => ({ messageCount: 0 }),
    bindQueue: async () => {},
    bindExchange: async () => {},
  });
  const connection = Object.assign(new EventEmitter(), { createConfirmChannel: async () => channel });
  const end = (reason: Error) => over.abort(reason);
  const session = { connection: connection as unknown as ChannelModel, signal: over.signal, end } as BrokerSession;
  const serving = track.serve(session);
  return {
    waiting,
    confirm: (messages: number) => {
      for (const confirmed of waiting.splice(0, messages)) confirmed(null);
    },
    end: () => {
      over.abort(new Error('the test ends it'));
      return serving;
    },
  };
}

function startTrack(): Track {
  const destination = { exchange: 'events', routingKey: () => 'key', eventsPerMessageMax: 1 };
  const log = createLogger('track', 'silent');
  const track = new Track({
    name: 'subscribers',
    topology: topologyOf('test'),
    destination,
    log,
    confirmTimeoutMs: 10_000,
  });
  track.begin(database, reader, 0);
  return track;
}

it('has no more than 2,000 messages wait for their confirm, however large a page is', async () => {
  const track = startTrack();
  const { waiting, confirm, end } = startSession(track);
  await until('a part of the page is published', () => waiting.length > 0);
  let confirmed = 0;
  while (confirmed < ROWS) {
    await until('there is something to confirm', () => waiting.length > 0);
    expect(waiting.length).toBeLessThanOrEqual(2000);
    expect(track.done()).toBe(confirmed);
    const some = Math.min(100, waiting.length);
    confirm(some);
    confirmed += some;
    await new Promise(setImmediate);
  }
  expect(track.done()).toBe(ROWS);
  expect(track.counts).toMatchObject({ confirmed: ROWS, inFlight: 0, republished: 0 });
  await end();
});

it('owes what of a page was not published yet when the session ended', async () => {
  const track = startTrack();
  const first = startSession(track);
  await until('two parts of the page are published', () => first.waiting.length === 2000);
  first.confirm(500);
  await first.end();
  expect(track.done()).toBe(500);
  const second = startSession(track);
  await until('everything is confirmed', () => {
    second.confirm(second.waiting.length);
    return track.done() === ROWS;
  });
  expect(track.counts).toMatchObject({ confirmed: ROWS, republished: ROWS - 500 });
  await second.end();
});
