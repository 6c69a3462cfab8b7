// The forms with which an update, a transfer or a hold is tried: what each sends, and which changes
// its answer names.
import { createAttempts } from './attempt.js';
import { changeOf, placementOf } from './follow.js';
import { element, input } from './show.js';

/** @typedef {import('./attempt.js').Attempt} Attempt */

export function createTry() {
  const { perform, onEvents } = createAttempts();
  let isBusy = false;

  /** @param {string} form @param {(button: HTMLElement | null) => Attempt} attemptOf @param {string[]} [alsoOf] fields of another form */
  function onSubmit(form, attemptOf, alsoOf = []) {
    element(form).addEventListener('submit', async (event) => {
      event.preventDefault();
      if (isBusy || !alsoOf.every((id) => input(id).reportValidity())) return;
      isBusy = true;
      const button = event.submitter;
      button?.setAttribute('aria-busy', 'true');
      await perform(attemptOf(button)).finally(() => {
        isBusy = false;
        button?.removeAttribute('aria-busy');
      });
    });
  }

  onSubmit('update', update);
  onSubmit('transfer-form', transfer);
  onSubmit('hold', placeHold);
  onSubmit('hold-end', endHold, ['hold-account', 'hold-id']);
  return {
    onEvents,
    /** With the account that is tried, where the address names one. @param {import('./route.js').Place} place */
    show({ of: accountId }) {
      if (accountId === '') return;
      for (const field of ['update-account', 'transfer-from', 'hold-account']) input(field).value = accountId;
    },
  };
}

/** @returns {Attempt} */
const update = () => ({
  path: 'v1/balance-updates',
  body: {
    accountId: text('update-account'),
    amount: Number(text('update-amount')),
    ...given('reference', 'update-reference'),
  },
  changes: (answer) => [changeOf(answer)],
});

/** @returns {Attempt} */
const transfer = () => ({
  path: 'v1/transfers',
  body: {
    from: text('transfer-from'),
    to: text('transfer-to'),
    amount: Number(text('transfer-amount')),
    ...given('reference', 'transfer-reference'),
  },
  changes: ({ legs }) => legs.map(changeOf),
});

/** @returns {Attempt} */
const placeHold = () => ({
  path: `${accountOfHold()}/holds`,
  body: {
    holdId: text('hold-id'),
    amount: Number(text('hold-amount')),
    ...given('expiresInSeconds', 'hold-seconds', Number),
  },
  withoutKey: true,
  // One that was there is as it was: its event is past.
  changes: (answer, status) => (status === 201 ? [placementOf(answer)] : []),
});

/** @type {(button: HTMLElement | null) => Attempt} */
const endHold = (button) => ({
  path: `${accountOfHold()}/holds/${encodeURIComponent(text('hold-id'))}/${button?.id === 'hold-release' ? 'release' : 'capture'}`,
  body: {
    ...given('amount', 'hold-end-amount', Number),
    ...(button?.id === 'hold-release' ? {} : given('to', 'hold-end-to')),
  },
  changes: ({ to, ...answer }) => [answer, ...(to ? [to] : [])].map(changeOf),
});

/** @param {string} id */
const text = (id) => input(id).value.trim();

const accountOfHold = () => `v1/accounts/${encodeURIComponent(text('hold-account'))}`;

/**
 * What a field holds, as a member; none where it is empty.
 * @param {string} name @param {string} id @param {(text: string) => unknown} [read]
 */
function given(name, id, read = String) {
  const value = text(id);
  return value === '' ? {} : { [name]: read(value) };
}
