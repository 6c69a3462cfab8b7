// Says whether what the page shows is of now, and why it is not. True also before anything came.
import { element, moment, show } from './show.js';

/** The service reports something each second. */
const SILENCE_MS = 3500;
const LOOK_EVERY_MS = 250;

/** @typedef {'connecting' | 'connected' | 'no API key' | 'disconnected'} ConnectionState */

export function createConnection() {
  /** @type {ConnectionState} */
  let state = 'connecting';
  let why = '';
  let changedAt = new Date();
  /** @type {Date | undefined} */
  let heardAt;

  function look() {
    const isSilent = state === 'connected' && Date.now() - (heardAt ?? changedAt).getTime() > SILENCE_MS;
    const isLive = state === 'connected' && !isSilent;
    const text = isLive || state === 'connecting' ? '' : problemOf(state, why, changedAt, heardAt);
    show('stale', text);
    element('stale').hidden = text === '';
    element('stale').classList.toggle('bad', state !== 'no API key');
    document.body.classList.toggle('is-stale', text !== '' && heardAt !== undefined);
  }

  setInterval(look, LOOK_EVERY_MS);
  return {
    onLive() {
      heardAt = new Date();
    },
    /** @param {ConnectionState} now @param {string} [reason] */
    onState(now, reason = '') {
      if (now !== state) changedAt = new Date();
      state = now;
      why = reason;
      show('link', now);
      element('link').classList.toggle('good', now === 'connected');
      element('link').classList.toggle('bad', now === 'disconnected');
      look();
    },
  };
}

/** @param {ConnectionState} state @param {string} why @param {Date} changedAt @param {Date | undefined} heardAt */
function problemOf(state, why, changedAt, heardAt) {
  const shown = heardAt ? `What you see is from ${moment(heardAt)}.` : 'Nothing is known yet.';
  if (state === 'no API key') return `${why || 'The service needs an API key to show anything.'} ${shown}`;
  if (state === 'disconnected') {
    const what = heardAt ? `Disconnected since ${moment(changedAt)}` : 'The service cannot be reached';
    return `${what} (${why}). ${shown} The page connects again by itself.`;
  }
  return `The service has reported nothing since ${moment(heardAt ?? changedAt)}. ${shown}`;
}
