// Puts values on the page: as text only, whatever they hold.

/** @param {string} id */
export function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no ${id}`);
  return found;
}

/** @param {string} id @returns {HTMLInputElement} */
export const input = (id) => /** @type {HTMLInputElement} */ (element(id));

/** @param {string} id @param {string | number} text */
export function show(id, text) {
  const target = element(id);
  if (target.textContent !== String(text)) target.textContent = String(text);
}

/** @typedef {'good' | 'warn' | 'bad' | ''} State '' where it is not known, or says nothing */

/** @param {string} id @param {State} state */
export function mark(id, state) {
  const { classList } = element(id);
  for (const name of ['good', 'warn', 'bad']) classList.toggle(name, name === state);
}

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat('en', { maximumSignificantDigits: 3 });

/** @param {number | null | undefined} value */
export const count = (value) => (value === null || value === undefined ? '–' : whole.format(value));

/** Three digits are enough to see. @param {number | null | undefined} value */
export const measure = (value) =>
  value === null || value === undefined ? '–' : value >= 100 ? whole.format(value) : fine.format(value);

/** @param {number} milliseconds */
export function duration(milliseconds) {
  if (milliseconds < 1000) return `${measure(milliseconds)} ms`;
  if (milliseconds < 120_000) return `${measure(milliseconds / 1000)} s`;
  return `${whole.format(milliseconds / 60_000)} min`;
}

const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });
/** Of Sweden, whose way to write a day is read alike everywhere: 2026-11-23 19:43:56. */
const day = new Intl.DateTimeFormat('sv-SE', { dateStyle: 'short', timeStyle: 'medium' });

/** Without the day where it is today. @param {string | number | Date} time */
export function moment(time) {
  const at = new Date(time);
  return (at.toDateString() === new Date().toDateString() ? clock : day).format(at);
}

const relative = new Intl.RelativeTimeFormat('en');
const UNITS = /** @type {const} */ ([
  ['day', 86_400_000],
  ['hour', 3_600_000],
  ['minute', 60_000],
  ['second', 1000],
]);

/** How far a time is from now: in 11 hours. @param {string} time */
export function distance(time) {
  const milliseconds = new Date(time).getTime() - Date.now();
  // A little less than an hour is an hour, not 60 minutes.
  const [unit, size] = UNITS.find(([, size]) => Math.abs(milliseconds) * 1.02 >= size) ?? UNITS[3];
  return relative.format(Math.round(milliseconds / size), unit);
}

/**
 * @typedef {object} Cell
 * @property {string | number} [text]
 * @property {string} [className]
 * @property {string} [title]
 * @property {{ text: string, href: string }[]} [links] instead of the text
 */

/** A row of a table. @param {Cell[]} cells */
export function row(cells) {
  const tr = document.createElement('tr');
  for (const { text = '', className, title, links } of cells) {
    const td = document.createElement('td');
    td.append(...(links ? links.map(link) : [String(text)]));
    if (className) td.className = className;
    if (title) td.title = title;
    tr.append(td);
  }
  return tr;
}

/** @param {{ text: string, href: string }} to a place of this page @returns {HTMLAnchorElement} */
export const link = ({ text, href }) => Object.assign(document.createElement('a'), { textContent: text, href });

/** A row that says why there is no other. @param {string} bodyId @param {string} text */
export function showNoRow(bodyId, text) {
  const columns = element(bodyId).closest('table')?.querySelectorAll('th').length ?? 1;
  const tr = row([{ text, className: 'note' }]);
  /** @type {HTMLTableCellElement} */ (tr.firstElementChild).colSpan = columns;
  element(bodyId).replaceChildren(tr);
}

/** @param {number} value @returns {Cell} */
export const numberCell = (value) => ({ text: whole.format(value), className: 'number' });

/** Green where it came, red where it went. @param {number} value @returns {Cell} */
export const amountCell = (value) => ({
  text: value > 0 ? `+${whole.format(value)}` : whole.format(value),
  className: `number ${value > 0 ? 'credit' : value < 0 ? 'debit' : ''}`,
});

/** May be long: it is cut, and whole in its title. @param {string} [text] @returns {Cell} */
export const textCell = (text = '') => ({ text, className: 'text', title: text });

/** @param {string} time @returns {Cell} */
export const timeCell = (time) => ({ text: moment(time), title: time });

/** @param {string} id of an account @param {string} href @returns {Cell} */
export const linkCell = (id, href) => ({ links: [{ text: id, href }], className: 'text', title: id });
