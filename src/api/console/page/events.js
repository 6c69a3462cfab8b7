// The newest events as they come from RabbitMQ, in the pace of an eye, whatever their own.
import { addressOf } from './route.js';
import {
  amountCell,
  element,
  linkCell,
  measure,
  numberCell,
  row,
  show,
  showNoRow,
  textCell,
  timeCell,
} from './show.js';

const EVENTS_SHOWN = 20;
const DRAW_EVERY_MS = 250;

/** @typedef {import('../../../shared/contract.ts').BalanceEvent} BalanceEvent */
/** @typedef {import('../live-stream.ts').Live} Live */

export function createEvents() {
  /** @type {BalanceEvent[]} newest first */
  let events = [];
  let isChanged = false;
  let seenSince = 0;
  const body = element('events');

  setInterval(() => {
    // A link that moves away cannot be followed.
    const isHeld = body.matches(':hover, :focus-within');
    element('events-held').hidden = !isHeld || !isChanged;
    if (!isChanged || isHeld) return;
    isChanged = false;
    body.replaceChildren(...events.map(rowOf));
  }, DRAW_EVERY_MS);

  return {
    /** @param {BalanceEvent[]} more */
    onEvents(more) {
      seenSince += more.length;
      events = [...more.toReversed(), ...events].slice(0, EVENTS_SHOWN);
      isChanged = true;
    },
    /** @param {Live} live */
    onLive({ broker, figures }) {
      const isConnected = broker === 'connected';
      const isSample = figures !== null && figures.confirmed > seenSince * 1.5 + 5;
      const sample = `a sample: ${measure(seenSince)} of about ${measure(figures?.confirmed)} a second`;
      show(
        'events-note',
        !isConnected
          ? 'none come: RabbitMQ is down. These are from before'
          : isSample
            ? sample
            : 'as they come from RabbitMQ',
      );
      body.classList.toggle('is-past', !isConnected);
      if (events.length === 0) showNoRow('events', isConnected ? 'none since this page was opened' : 'none known');
      seenSince = 0;
    },
  };
}

/** @param {BalanceEvent} event */
const rowOf = ({ time, type, data: { accountId, version, amount, balance, reference } }) =>
  row([
    linkCell(accountId, addressOf('account', accountId)),
    numberCell(version),
    { text: type },
    amountCell(amount),
    numberCell(balance),
    textCell(reference),
    timeCell(time),
  ]);
