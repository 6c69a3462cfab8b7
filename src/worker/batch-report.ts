// Logs the events of one batch that were not recorded: three lines at most, each with the first
// few. Anyone who may publish can cause many such events, but not many log lines.
import type { ConsumeMessage } from 'amqplib';
import type { Change } from '../shared/change.ts';
import type { Logger } from '../shared/logging.ts';

const SHOWN_MAX = 5;
/** Of a message id, which its publisher chose. */
const CHARACTERS_MAX = 100;

/** The first few of some, and how many there were. */
interface Some<T> {
  count: number;
  first: T[];
}

type Named = Pick<Change, 'accountId' | 'version' | 'epoch'>;

export class BatchReport {
  readonly #malformed: Some<string> = { count: 0, first: [] };
  readonly #forged: Some<Named> = { count: 0, first: [] };
  readonly #superseded: Some<Named> = { count: 0, first: [] };

  malformed({ properties }: ConsumeMessage): void {
    add(this.#malformed, () => String(properties.messageId).slice(0, CHARACTERS_MAX));
  }

  forged(change: Change): void {
    add(this.#forged, () => named(change));
  }

  superseded(change: Change): void {
    add(this.#superseded, () => named(change));
  }

  writeTo(log: Logger): void {
    const malformed = this.#malformed;
    if (malformed.count > 0) {
      log.error({ messages: malformed.count, messageIds: malformed.first }, 'dead-lettered malformed messages');
    }
    const forged = this.#forged;
    if (forged.count > 0) {
      const what = { events: forged.count, first: forged.first };
      log.error(what, 'dead-lettered events that match no accepted change');
    }
    const superseded = this.#superseded;
    if (superseded.count > 0) {
      const what = { events: superseded.count, first: superseded.first };
      log.warn(what, 'dropped events from a history that the database has lost');
    }
  }
}

function add<T>(some: Some<T>, one: () => T): void {
  some.count += 1;
  if (some.first.length < SHOWN_MAX) some.first.push(one());
}

function named({ accountId, version, epoch }: Change): Named {
  return { accountId, version, epoch };
}
