// What became of an attempt, step by step: a list that grows, and whose last steps are filled in
// when they happen.
import { addressOf } from './route.js';
import { element, link } from './show.js';

/** For the steps after the first: where there is less, the page scrolls. */
const ROOM_PX = 100;

/** Fills a step in: its title, when it happened, and what it was. @typedef {(title: string, when?: string, what?: unknown) => void} Fill */

export function clearSteps() {
  element('steps').replaceChildren();
  element('steps-links').replaceChildren();
}

/** @param {string[]} accountIds that an attempt changed */
export function showLinks(accountIds) {
  const links = accountIds.map((id) => link({ text: `Show ${id}`, href: addressOf('account', id) }));
  element('steps-links').replaceChildren(...links);
}

/** @type {(...first: Parameters<Fill>) => Fill} */
export function step(...first) {
  const item = document.createElement('li');
  const heading = document.createElement('span');
  item.append(heading);
  /** @type {Fill} */
  const fill = (title, when, what) => {
    heading.textContent = title;
    if (when)
      heading.append(' ', Object.assign(document.createElement('span'), { className: 'when', textContent: when }));
    if (what === undefined) return;
    const textContent = typeof what === 'string' ? what : JSON.stringify(what, null, 2);
    item.append(Object.assign(document.createElement('pre'), { textContent }));
  };
  fill(...first);
  element('steps').append(item);
  const isFirst = element('steps').childElementCount === 1;
  if (isFirst && item.getBoundingClientRect().bottom > innerHeight - ROOM_PX) item.scrollIntoView();
  return fill;
}
