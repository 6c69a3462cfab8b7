// A change on its way after the answer: its event as it comes from RabbitMQ, and its ledger entry.
import { call } from './key.js';
import { duration } from './show.js';
import { step } from './steps.js';

const EVENT_WAIT_MS = 15_000;
const ENTRY_WAIT_MS = 30_000;
const ENTRY_EVERY_MS = 50;
const EVENTS_KEPT = 200;

/** @typedef {import('../../../shared/contract.ts').BalanceEvent} BalanceEvent */
/** @typedef {import('../../../shared/contract.ts').Entry} Entry */

/**
 * A change that is followed.
 * @typedef {object} Change
 * @property {string} accountId
 * @property {(event: BalanceEvent) => boolean} isItsEvent
 * @property {string} query of the entries of the account, whose first is the one, once it is there
 * @property {(entry: Entry) => boolean} isItsEntry
 */

/** @param {{ accountId: string, version: number, eventId: string }} answer @returns {Change} */
export const changeOf = ({ accountId, version, eventId }) => ({
  accountId,
  isItsEvent: ({ id }) => id === eventId,
  query: `limit=1&cursor=${version + 1}`,
  isItsEntry: (entry) => entry.version === version,
});

/** The answer to a placed hold has no version. @param {{ accountId: string, holdId: string }} answer @returns {Change} */
export const placementOf = ({ accountId, holdId }) => ({
  accountId,
  isItsEvent: ({ subject, type, data }) => subject === accountId && type === 'hold.placed' && data.hold?.id === holdId,
  query: `limit=1&type=hold.placed&holdId=${encodeURIComponent(holdId)}`,
  isItsEntry: () => true,
});

export function createFollower() {
  /** @type {Set<(event: BalanceEvent) => void>} what waits for an event */
  const waiting = new Set();
  /** @type {BalanceEvent[]} those of the last seconds: an event can be here before the answer is */
  let lately = [];

  /** @param {Change} change @returns {Promise<BalanceEvent | undefined>} */
  function eventOf({ isItsEvent }) {
    const known = lately.find(isItsEvent);
    if (known) return Promise.resolve(known);
    return new Promise((resolve) => {
      /** @param {BalanceEvent | undefined} event */
      const settle = (event) => {
        clearTimeout(timer);
        waiting.delete(look);
        resolve(event);
      };
      const timer = setTimeout(() => settle(undefined), EVENT_WAIT_MS);
      /** @param {BalanceEvent} event */
      const look = (event) => {
        if (isItsEvent(event)) settle(event);
      };
      waiting.add(look);
    });
  }

  /** @param {Change} change @returns {Promise<Entry | undefined>} */
  async function entryOf({ accountId, query, isItsEntry }) {
    for (const endMs = performance.now() + ENTRY_WAIT_MS; performance.now() < endMs; ) {
      const { body } = await call(`v1/accounts/${encodeURIComponent(accountId)}/entries?${query}`);
      const [entry] = body.entries;
      if (entry && isItsEntry(entry)) return entry;
      await new Promise((resolve) => setTimeout(resolve, ENTRY_EVERY_MS));
    }
    return undefined;
  }

  return {
    /**
     * Shows both as steps. @param {Change} change @param {string} name what distinguishes it from others, or '' where it is alone
     * @param {() => string} since the request was sent
     */
    async follow(change, name, since) {
      const published = step(`Event${name}: waiting for it from RabbitMQ`);
      const recorded = step(`Ledger entry${name}: waiting for it`);
      await Promise.all([
        eventOf(change).then((event) =>
          event
            ? published(`Event${name}, as subscribers get it`, since(), event)
            : published(
                `Event${name}: not seen here. While very many pass this page sees a sample; while RabbitMQ is down it comes later.`,
              ),
        ),
        entryOf(change).then(
          (entry) => {
            if (!entry) {
              return recorded(`Ledger entry${name}: not there yet. It comes when RabbitMQ and the worker are back.`);
            }
            const lag = new Date(entry.recordedAt).getTime() - new Date(entry.createdAt).getTime();
            recorded(`Ledger entry${name}`, `recorded ${duration(Math.max(0, lag))} after it was accepted`, entry);
          },
          (error) => recorded(`Ledger entry${name}: could not be read (${error.message})`),
        ),
      ]);
    },
    /** @param {BalanceEvent[]} events */
    onEvents(events) {
      lately = [...lately, ...events].slice(-EVENTS_KEPT);
      for (const event of events) for (const look of waiting) look(event);
    },
  };
}
