// One call that moves money, step by step: what is sent, what is answered, and each change on its
// way to the ledger.
import { createFollower } from './follow.js';
import { CallFailed, call } from './key.js';
import { duration } from './show.js';
import { clearSteps, showLinks, step } from './steps.js';

/** @typedef {import('./follow.js').Change} Change */

/**
 * A call that changes something.
 * @typedef {object} Attempt
 * @property {string} path
 * @property {object} body
 * @property {boolean} [withoutKey] where what it sends is its key
 * @property {(answer: any, status: number) => Change[]} changes that it made
 */

export function createAttempts() {
  const { follow, onEvents } = createFollower();
  /** @type {{ text: string, key: string } | undefined} a call whose outcome is not known: it is sent again under its key */
  let unsettled;

  /** @param {string} text of the whole request */
  function keyOf(text) {
    if (unsettled?.text !== text) unsettled = { text, key: crypto.randomUUID() };
    return unsettled.key;
  }

  /** @param {Attempt} attempt */
  async function perform({ path, body, withoutKey, changes }) {
    clearSteps();
    const text = `POST /${path}\n\n${JSON.stringify(body)}`;
    /** @type {Record<string, string>} */
    const headers = withoutKey ? {} : { 'idempotency-key': keyOf(text) };
    step('Request', '', withoutKey ? text : text.replace('\n', `\nIdempotency-Key: ${headers['idempotency-key']}\n`));
    const sentAtMs = performance.now();
    const since = () => `after ${duration(performance.now() - sentAtMs)}`;
    const answered = step('Answer: waiting');
    /** @type {any} */
    let answer;
    try {
      answer = await call(path, { method: 'POST', body, headers });
      unsettled = undefined;
    } catch (error) {
      if (error instanceof CallFailed && error.status >= 400 && error.status < 500) unsettled = undefined;
      answered(
        `Answer: ${error instanceof CallFailed ? `${error.status || ''} ${error.code ?? ''}` : ''}`,
        since(),
        error instanceof Error ? error.message : String(error),
      );
      return;
    }
    answered(`Answer: ${answer.status}, PostgreSQL has it`, since(), answer.body);
    const made = changes(answer.body, answer.status);
    showLinks(made.map(({ accountId }) => accountId));
    await Promise.all(made.map((change) => follow(change, made.length > 1 ? ` of ${change.accountId}` : '', since)));
  }

  return { perform, onEvents };
}
