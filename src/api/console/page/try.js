// One update, step by step: what is sent, what is answered, the event that comes from RabbitMQ, and the ledger entry.
import { CallFailed, call } from './key.js';
import { duration, element, input } from './show.js';

const EVENT_WAIT_MS = 15_000;
const ENTRY_WAIT_MS = 30_000;
const ENTRY_EVERY_MS = 50;

/** @typedef {import('../../../shared/contract.ts').BalanceEvent} BalanceEvent */

/** @param {{ onApplied: (accountId: string) => void }} options */
export function createTry({ onApplied }) {
  /** @type {Map<string, (event: BalanceEvent) => void>} event ids that somebody waits for */
  const awaited = new Map();
  /** @type {{ text: string, key: string } | undefined} an update whose outcome is not known: once more, it goes under its key */
  let unsettled;
  /** @type {BalanceEvent[]} those of the last seconds: an event can be here before the answer is */
  let lately = [];

  /** @param {string} title @param {string} [when] @param {unknown} [what] */
  function step(title, when, what) {
    const item = document.createElement('li');
    const heading = document.createElement('span');
    item.append(heading);
    /** @param {string} title @param {string} [when] @param {unknown} [what] */
    const fill = (title, when, what) => {
      heading.textContent = title;
      if (when)
        heading.append(' ', Object.assign(document.createElement('span'), { className: 'when', textContent: when }));
      if (what === undefined) return;
      item.append(
        Object.assign(document.createElement('pre'), {
          textContent: typeof what === 'string' ? what : JSON.stringify(what, null, 2),
        }),
      );
    };
    fill(title, when, what);
    element('steps').append(item);
    return fill;
  }

  /** @param {string} id @returns {Promise<BalanceEvent | undefined>} */
  function eventOf(id) {
    const known = lately.find((event) => event.id === id);
    if (known) return Promise.resolve(known);
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        awaited.delete(id);
        resolve(undefined);
      }, EVENT_WAIT_MS);
      awaited.set(id, (event) => {
        clearTimeout(timer);
        awaited.delete(id);
        resolve(event);
      });
    });
  }

  /** @param {string} accountId @param {number} version */
  async function entryOf(accountId, version) {
    for (const endMs = performance.now() + ENTRY_WAIT_MS; performance.now() < endMs; ) {
      const { body } = await call(`v1/accounts/${encodeURIComponent(accountId)}/entries?limit=1&cursor=${version + 1}`);
      if (body.entries[0]?.version === version) return body.entries[0];
      await new Promise((resolve) => setTimeout(resolve, ENTRY_EVERY_MS));
    }
    return undefined;
  }

  async function post() {
    element('steps').replaceChildren();
    const reference = input('update-reference').value.trim();
    const body = {
      accountId: input('update-account').value.trim(),
      amount: Number(input('update-amount').value),
      ...(reference === '' ? {} : { reference }),
    };
    const text = JSON.stringify(body);
    const idempotencyKey = unsettled?.text === text ? unsettled.key : crypto.randomUUID();
    unsettled = { text, key: idempotencyKey };
    step('Request', '', `POST /v1/balance-updates\nIdempotency-Key: ${idempotencyKey}\n\n${text}`);
    const sentAtMs = performance.now();
    const since = () => `after ${duration(performance.now() - sentAtMs)}`;
    const answered = step('Answer: waiting');
    /** @type {any} */
    let answer;
    try {
      answer = await call('v1/balance-updates', {
        method: 'POST',
        body,
        headers: { 'idempotency-key': idempotencyKey },
      });
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
    const { accountId, version, eventId } = answer.body;
    onApplied(accountId);
    const published = step('Event: waiting for it from RabbitMQ');
    const recorded = step('Ledger entry: waiting for it');
    await Promise.all([
      eventOf(eventId).then((event) =>
        event
          ? published('Event, as subscribers get it', since(), event)
          : published(
              'Event: not seen here. While very many pass this page sees a sample; with RabbitMQ away it comes later.',
            ),
      ),
      entryOf(accountId, version).then(
        (entry) => {
          if (!entry) return recorded('Ledger entry: not there yet. It comes when RabbitMQ and the worker are back.');
          const lag = new Date(entry.recordedAt).getTime() - new Date(entry.createdAt).getTime();
          recorded('Ledger entry', `recorded ${duration(Math.max(0, lag))} after it was accepted`, entry);
        },
        (error) => recorded(`Ledger entry: could not be read (${error.message})`),
      ),
    ]);
  }

  element('update').addEventListener('submit', async (event) => {
    event.preventDefault();
    const button = /** @type {HTMLButtonElement} */ (element('update').querySelector('button'));
    if (button.getAttribute('aria-busy') === 'true') return;
    button.setAttribute('aria-busy', 'true');
    await post().finally(() => button.removeAttribute('aria-busy'));
  });

  return {
    /** @param {BalanceEvent[]} events */
    onEvents(events) {
      lately = [...lately, ...events].slice(-200);
      for (const event of events) awaited.get(event.id)?.(event);
    },
  };
}
