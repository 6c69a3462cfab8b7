// The API key that the person gave, for this tab, and calls of the API with it.
import { element, input } from './show.js';

const STORED = 'highload-balance key';
const CALL_TIMEOUT_MS = 15_000;

/** Any problem document, or that nothing was answered. */
export class CallFailed extends Error {
  /** @param {string} message @param {number} status @param {string} [code] */
  constructor(message, status, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** @returns {Record<string, string>} */
export function keyHeaders() {
  const key = sessionStorage.getItem(STORED);
  return key ? { authorization: `Bearer ${key}` } : {};
}

/**
 * One call. @throws CallFailed
 * @param {string} path relative to the service
 * @param {{ method?: string, body?: object, headers?: Record<string, string> }} [options]
 */
export async function call(path, { method = 'GET', body, headers = {} } = {}) {
  /** @type {Response} */
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: { ...keyHeaders(), ...(body ? { 'content-type': 'application/json' } : {}), ...headers },
      ...(body ? { body: JSON.stringify(body) } : {}),
      signal: AbortSignal.timeout(CALL_TIMEOUT_MS),
    });
  } catch (error) {
    throw new CallFailed(`no answer: ${error instanceof Error ? error.message : error}`, 0);
  }
  return { status: response.status, headers: response.headers, body: await bodyOf(response) };
}

/** @param {Response} response */
async function bodyOf(response) {
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  throw new CallFailed(problemText(body, response.status), response.status, body.code);
}

/** @param {{ title?: string, detail?: string, errors?: { where: string, what: string }[] }} problem @param {number} status */
export function problemText(problem, status) {
  const errors = (problem.errors ?? []).map(({ where, what }) => `${where} ${what}`).join('; ');
  return [problem.title ?? `status ${status}`, problem.detail, errors].filter(Boolean).join(' – ');
}

/** @param {string} [problem] */
export function askForKey(problem = '') {
  element('key-problem').textContent = problem;
  const dialog = /** @type {HTMLDialogElement} */ (element('key-dialog'));
  if (!dialog.open) dialog.showModal();
}

/** @param {() => void} onChange */
export function watchKey(onChange) {
  const dialog = /** @type {HTMLDialogElement} */ (element('key-dialog'));
  element('key-button').addEventListener('click', () => askForKey());
  element('key-cancel').addEventListener('click', () => dialog.close());
  element('key-form').addEventListener('submit', () => {
    const key = input('key-input').value.trim();
    if (key === '') sessionStorage.removeItem(STORED);
    else sessionStorage.setItem(STORED, key);
    input('key-input').value = '';
    onChange();
  });
}
