// What became of an attempt, step by step: a list that grows, and whose last steps are filled in when they happen.
import { element } from './show.js';

/** Fills a step in: its title, when it happened, and what it was. @typedef {(title: string, when?: string, what?: unknown) => void} Fill */

export const clearSteps = () => element('steps').replaceChildren();

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
  return fill;
}
