// Whose key this is, and what it may: said before anything is refused. The service decides.
import { element, show } from './show.js';

/** @typedef {import('../live-stream.ts').Caller} Caller */

/** @param {Caller | undefined} caller undefined while it is not known */
export function showCaller(caller) {
  element('key-button').hidden = caller?.client === null;
  show('caller', callerText(caller));
  for (const place of document.querySelectorAll('[data-scope]')) {
    const scope = /** @type {'write' | 'admin'} */ (/** @type {HTMLElement} */ (place).dataset.scope);
    const isLacking = caller !== undefined && !caller.scopes.includes(scope);
    const note = /** @type {HTMLElement} */ (place.querySelector('.lacks'));
    note.hidden = !isLacking;
    note.textContent = isLacking ? `This takes a key with the scope ${scope}. Yours has ${listOf(caller.scopes)}.` : '';
    for (const button of place.querySelectorAll('button')) button.disabled = isLacking;
  }
}

/** @param {Caller | undefined} caller */
function callerText(caller) {
  if (!caller?.client) return '';
  const of = caller.accountPrefix === null ? 'all accounts' : `accounts that begin with ${caller.accountPrefix}`;
  return `In use: the key of ${caller.client}, for ${listOf(caller.scopes)}, of ${of}.`;
}

/** @param {readonly string[]} scopes */
const listOf = (scopes) => new Intl.ListFormat('en').format(scopes);
