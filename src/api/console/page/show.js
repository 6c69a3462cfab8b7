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

/** @param {string} id @param {'good' | 'bad' | ''} state */
export function mark(id, state) {
  const { classList } = element(id);
  classList.toggle('good', state === 'good');
  classList.toggle('bad', state === 'bad');
}

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat('en', { maximumSignificantDigits: 3 });

/** @param {number | null | undefined} value */
export const count = (value) => (value === null || value === undefined ? '–' : whole.format(value));

/** Three digits are enough to see. @param {number | null | undefined} value @param {string} unknown */
export const measure = (value, unknown = '–') =>
  value === null || value === undefined ? unknown : value >= 100 ? whole.format(value) : fine.format(value);

/** @param {number} milliseconds */
export function duration(milliseconds) {
  if (milliseconds < 1000) return `${measure(milliseconds)} ms`;
  if (milliseconds < 120_000) return `${measure(milliseconds / 1000)} s`;
  return `${whole.format(milliseconds / 60_000)} min`;
}

const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });
const day = new Intl.DateTimeFormat('en-GB', { dateStyle: 'short', timeStyle: 'medium' });

/** Of the day where it is today's. @param {string | number | Date} time */
export function moment(time) {
  const at = new Date(time);
  return (at.toDateString() === new Date().toDateString() ? clock : day).format(at);
}

/**
 * A row of a table.
 * @param {{ text: string | number, className?: string, title?: string }[]} cells
 */
export function row(cells) {
  const tr = document.createElement('tr');
  for (const { text, className, title } of cells) {
    const td = document.createElement('td');
    td.textContent = String(text);
    if (className) td.className = className;
    if (title) td.title = title;
    tr.append(td);
  }
  return tr;
}

/** @param {number} value */
export const signed = (value) => (value > 0 ? `+${whole.format(value)}` : whole.format(value));
/** @param {number} value */
export const direction = (value) => `number ${value > 0 ? 'credit' : value < 0 ? 'debit' : ''}`;
