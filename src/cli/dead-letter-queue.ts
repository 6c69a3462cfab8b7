// Lists the dead letters, puts them back, discards them. A letter leaves the queue only when that
// is done: killing the command at any moment loses none, and anything published twice is a
// duplicate to the worker.
import { setTimeout as delay } from 'node:timers/promises';
import type { ChannelModel, ConfirmChannel, ConsumeMessage } from 'amqplib';
import { answered } from '../shared/broker.ts';
import { openChannel } from '../shared/channel.ts';
import { SettingsError } from '../shared/config.ts';
import type { Topology } from '../shared/topology.ts';
import { type DeadLetter, describeDeadLetter, type Reason } from './dead-letter.ts';
import { propertiesOf, takeMessages } from './messages.ts';

/** Letters in memory at a time, and secured together before they are acknowledged; fewer where they are large. */
const PAGE_MAX = 200;
/**
 * Where some letters of a page stay, the others are acknowledged one by one, and no more than these in a row: a channel
 * passes 32 commands to a quorum queue without waiting, and drops what is beyond when it is closed.
 */
const PICKED_PAGE_MAX = 16;
/** RabbitMQ counts a reader, and what it held, for a moment after its end. */
const READER_GONE_MS = 2000;
const READER_LOOK_MS = 100;
/** Letters of many MB that went back take seconds to come again from a busy broker. */
const SILENCE_MS = 10_000;

/** Which letters, of those that are there when the command starts; without ids and reasons all of them. */
export interface Selection {
  ids: readonly string[];
  reasons: readonly Reason[];
}

export interface Look {
  queue: string;
  /** All that are there, also those that are not shown. */
  messages: number;
  /** Oldest first. */
  letters: DeadLetter[];
  /** False if some could not be read: there was no time, or another process held them. */
  complete: boolean;
}

export interface Removal {
  queue: string;
  removed: number;
  byReason: Partial<Record<Reason, number>>;
  /** Ids that no letter has; none where not all were looked at. */
  missing: string[];
  complete: boolean;
}

interface Held {
  message: ConsumeMessage;
  letter: DeadLetter;
}

/** Works until its connection is closed: then what was looked at and not removed is in the queue again. */
export interface DeadLetterQueue {
  /**
   * The first letters of a selection. All stay in the queue; no one else gets them until the
   * connection is closed.
   */
  look(selection: Selection, limit: number, deadlineMs: number): Promise<Look>;
  /** Gives letters to the worker once more, through its own queue: no subscriber sees them. */
  putBack(selection: Selection, deadlineMs: number): Promise<Removal>;
  discard(selection: Selection, deadlineMs: number): Promise<Removal>;
}

/** @throws when there is no such queue. Deadlines are on the clock of performance.now(). */
export async function openDeadLetters(
  connection: ChannelModel,
  { deadLetters, ledgerQueue }: Topology,
): Promise<DeadLetterQueue> {
  const channel: ConfirmChannel = await openChannel(connection.createConfirmChannel());
  const { messageCount: messages, consumerCount } = await find(channel, deadLetters);
  let returned = false;
  channel.on('return', () => {
    returned = true;
  });
  const blocked = new Promise<never>((_, reject) => {
    connection.on('blocked', (reason) =>
      reject(new SettingsError(`RabbitMQ accepts no messages at the moment (${reason}). Try again later.`)),
    );
  });
  blocked.catch(() => {});

  /** The next letters, at most `limit`. */
  async function takePage(limit: number): Promise<Held[]> {
    const messages = await takeMessages(channel, deadLetters, limit, SILENCE_MS);
    return messages.map((message) => ({ message, letter: describeDeadLetter(message, ledgerQueue) }));
  }

  /**
   * Goes through the letters, but no more than there were at the start: those that the worker
   * refuses again are added after them. @returns whether it has seen all of them: the count lacks
   * what another reader holds.
   */
  async function scan(
    pageMax: number,
    deadlineMs: number,
    each: (page: readonly Held[]) => Promise<'on' | 'enough'>,
  ): Promise<boolean> {
    let limit = pageMax;
    for (let seen = 0; seen < messages; ) {
      if (performance.now() >= deadlineMs) return false;
      const asked = Math.min(limit, messages - seen);
      const page = await takePage(asked);
      if (page.length === 0) return false;
      seen += page.length;
      limit = page.length < asked ? page.length : Math.min(pageMax, 2 * limit); // large letters come again for each page
      if ((await each(page)) === 'enough') break;
    }
    return consumerCount === 0;
  }

  async function remove(
    selection: Selection,
    deadlineMs: number,
    secure: (page: readonly Held[]) => Promise<void>,
  ): Promise<Removal> {
    const everything = selection.ids.length + selection.reasons.length === 0;
    const missing = new Set(selection.ids);
    const byReason: Removal['byReason'] = {};
    let removed = 0;
    const complete = await scan(everything ? PAGE_MAX : PICKED_PAGE_MAX, deadlineMs, async (page) => {
      const selected = page.filter(({ letter }) => isSelected(selection, letter));
      await secure(selected);
      if (everything) channel.ack((page.at(-1) as Held).message, true);
      else for (const { message } of selected) channel.ack(message);
      for (const { letter } of page) missing.delete(letter.id);
      for (const { letter } of selected) byReason[letter.reason] = (byReason[letter.reason] ?? 0) + 1;
      removed += selected.length;
      return 'on';
    });
    // The queue answers a new consumer after it has taken the acknowledgements before it; looking at the queue would not do.
    await takePage(0);
    return { queue: deadLetters, removed, byReason, missing: complete ? [...missing] : [], complete };
  }

  /** Resolves when RabbitMQ has all of them safely in the ledger queue. */
  async function publish(page: readonly Held[]): Promise<void> {
    const confirms = page.map(({ message }) => {
      return new Promise<void>((resolve, reject) => {
        channel.publish('', ledgerQueue, message.content, propertiesOf(message), (error) =>
          error ? reject(error) : resolve(),
        );
      });
    });
    await answered('taking the messages', Promise.race([Promise.all(confirms), blocked]));
    // RabbitMQ also confirms messages that it could not route: only the return shows it, and comes
    // first.
    if (returned) throw new SettingsError(`There is no queue ${ledgerQueue}. Start the worker, then try again.`);
  }

  return {
    async look(selection, limit, deadlineMs) {
      const letters: DeadLetter[] = [];
      const complete = await scan(PAGE_MAX, deadlineMs, async (page) => {
        for (const { letter } of page) if (isSelected(selection, letter)) letters.push(letter);
        return letters.length >= limit ? 'enough' : 'on';
      });
      return { queue: deadLetters, messages, letters: letters.slice(0, limit), complete };
    },
    putBack: (selection, deadlineMs) => remove(selection, deadlineMs, publish),
    discard: (selection, deadlineMs) => remove(selection, deadlineMs, async () => {}),
  };
}

const NOT_FOUND = 404;

/** Waits a moment for another reader to go: what it holds is not counted. @throws SettingsError if there is no such queue. */
async function find(channel: ConfirmChannel, queue: string): Promise<{ messageCount: number; consumerCount: number }> {
  for (const untilMs = performance.now() + READER_GONE_MS; ; await delay(READER_LOOK_MS)) {
    const found = await answered('finding the queue', channel.checkQueue(queue)).catch(
      (error: Error & { code?: number }) => {
        if (error.code !== NOT_FOUND) throw error;
        throw new SettingsError(
          `There is no queue ${queue}. The worker creates it: start one, or correct AMQP_NAMESPACE.`,
        );
      },
    );
    if (found.consumerCount === 0 || performance.now() >= untilMs) return found;
  }
}

function isSelected({ ids, reasons }: Selection, { id, reason }: DeadLetter): boolean {
  return (ids.length === 0 || ids.includes(id)) && (reasons.length === 0 || reasons.includes(reason));
}
