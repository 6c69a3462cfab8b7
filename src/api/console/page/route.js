// The address says what is shown, so that links, reload, back and forward work:
// #account=alice&type=hold.placed. Its first name is the view, with what it is of; the rest narrows
// that down.
import { element } from './show.js';

const VIEWS = ['live', 'accounts', 'account', 'transfer', 'try'];
/** Under which link of the header the others are. */
const PART_OF = new Map([
  ['account', 'accounts'],
  ['transfer', 'accounts'],
]);

/** @typedef {{ view: string, of: string, more: Record<string, string> }} Place */

/** @returns {Place} */
export function placeNow() {
  const [[view, of] = ['', ''], ...more] = new URLSearchParams(location.hash.slice(1));
  return VIEWS.includes(view) ? { view, of, more: Object.fromEntries(more) } : { view: 'live', of: '', more: {} };
}

/**
 * The address of a place. What is empty is left out.
 * @param {string} view @param {string} [of] @param {Record<string, string>} [more]
 */
export function addressOf(view, of = '', more = {}) {
  const given = Object.entries(more).filter(([, value]) => value !== '');
  const text = new URLSearchParams([[view, of], ...given]).toString().replaceAll('%3A', ':');
  return `#${of === '' ? text.replace('=', '') : text}`;
}

/**
 * Calls `onPlace` for the present place, and for each that follows, with the one before it.
 * @param {(place: Place, before?: Place) => void} onPlace
 */
export function watchPlace(onPlace) {
  /** @type {Place | undefined} */
  let before;
  const arrive = () => {
    const place = placeNow();
    const { view } = place;
    for (const name of VIEWS) element(name).hidden = name !== view;
    for (const link of document.querySelectorAll('nav a')) {
      const isCurrent = link.getAttribute('href') === `#${PART_OF.get(view) ?? view}`;
      if (isCurrent) link.setAttribute('aria-current', 'page');
      else link.removeAttribute('aria-current');
    }
    if (before && before.view !== view) {
      scrollTo(0, 0);
      element(view).focus({ preventScroll: true });
    }
    onPlace(place, before);
    before = place;
  };
  addEventListener('hashchange', arrive);
  element('skip').addEventListener('click', (event) => {
    event.preventDefault();
    element(placeNow().view).focus();
  });
  arrive();
}
