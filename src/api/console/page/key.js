// The API key that the person gave, for this tab, and calls of the API with it.
import { element, input } from './show.js';

const STORED = 'highload-balance key';
const CALL_TIMEOUT_MS = 15_000;
/**
 * A busy service refuses some of what a view reads at once. These are the pauses before each is
 * read again.
 */
const PAUSES_MS = [300, 1000, 3000];

/** Any problem document, or that nothing was answered. */
export class CallFailed extends Error {
  /** @param {string} message @param {number} status @param {string} [code] */
  constructor(message, status, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const hasKey = () => sessionStorage.getItem(STORED) !== null;

/** @returns {Record<string, string>} */
export function keyHeaders() {
  const key = sessionStorage.getItem(STORED);
  return key ? { authorization: `Bearer ${key}` } : {};
}

/**
 * One call. What is only read, and refused with 503, is tried again. @throws CallFailed
 * @param {string} path relative to the service
 * @param {{ method?: string, body?: object, headers?: Record<string, string> }} [options]
 */
export async function call(path, { method = 'GET', body, headers = {} } = {}) {
  const text = body && JSON.stringify(body);
  const all = { ...keyHeaders(), ...(text ? { 'content-type': 'application/json' } : {}), ...headers };
  for (const pauseMs of method === 'GET' ? PAUSES_MS : []) {
    const response = await send(path, method, all, text);
    if (response.status !== 503) return answerOf(response);
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
  return answerOf(await send(path, method, all, text));
}

/** @param {string} path @param {string} method @param {Record<string, string>} headers @param {string} [body] */
async function send(path, method, headers, body) {
  try {
    return await fetch(path, { method, headers, body: body ?? null, signal: AbortSignal.timeout(CALL_TIMEOUT_MS) });
  } catch (error) {
    throw new CallFailed(`no answer: ${error instanceof Error ? error.message : error}`, 0);
  }
}

/** @param {Response} response */
const answerOf = async (response) => ({
  status: response.status,
  headers: response.headers,
  body: await bodyOf(response),
});

/** @param {Response} response */
async function bodyOf(response) {
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  // Without a key the page says at its top that it needs one.
  const message = response.status === 401 && !hasKey() ? '' : problemText(body, response.status);
  throw new CallFailed(message, response.status, body.code);
}

/** @param {{ title?: string, detail?: string, errors?: { where: string, what: string }[] }} problem @param {number} status */
export function problemText(problem, status) {
  const errors = (problem.errors ?? []).map(({ where, what }) => `${where} ${what}`).join('; ');
  return [problem.title ?? `status ${status}`, problem.detail, errors].filter(Boolean).join(' – ');
}

/** @param {string} [problem] */
export function askForKey(problem = '') {
  element('key-problem').textContent = problem;
  element('key-forget').hidden = !hasKey();
  const dialog = /** @type {HTMLDialogElement} */ (element('key-dialog'));
  if (!dialog.open) dialog.showModal();
}

/** @param {() => void} onChange */
export function watchKey(onChange) {
  const dialog = /** @type {HTMLDialogElement} */ (element('key-dialog'));
  element('key-button').addEventListener('click', () => askForKey());
  element('key-cancel').addEventListener('click', () => dialog.close());
  element('key-forget').addEventListener('click', () => {
    sessionStorage.removeItem(STORED);
    dialog.close();
    onChange();
  });
  element('key-form').addEventListener('submit', () => {
    sessionStorage.setItem(STORED, input('key-input').value.trim());
    input('key-input').value = '';
    onChange();
  });
}
