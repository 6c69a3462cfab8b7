// Requests: their paths, queries and bodies.
import { invalidInput } from './balance-error.ts';
import type { HttpRequest } from './http.ts';

export function get(path: string, answerHas: string): HttpRequest {
  return { method: 'GET', path, answerHas };
}

export function post(path: string, body: object, answerHas: string): HttpRequest {
  return { method: 'POST', path, body: JSON.stringify(body), answerHas };
}

export function patch(path: string, body: object, answerHas: string): HttpRequest {
  return { ...post(path, body, answerHas), method: 'PATCH' };
}

/** With `?` where there is anything. What is undefined is left out. @throws TypeError at an invalid Date. */
export function queryOf(parameters: object): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value instanceof Date && Number.isNaN(value.getTime())) throw new TypeError(`${name} must be a valid Date`);
    if (value !== undefined) query.set(name, value instanceof Date ? value.toISOString() : String(value));
  }
  return query.size > 0 ? `?${query}` : '';
}

export function accountPath(id: string): string {
  return `/v1/accounts/${pathPart('id', 'an account id', id)}`;
}

export function holdPath(id: string, holdId: string): string {
  return `${accountPath(id)}/holds/${pathPart('holdId', 'a hold id', holdId)}`;
}

export function transferPath(id: string): string {
  return `/v1/transfers/${pathPart('id', 'a transferId', id)}`;
}

/**
 * Encoded. Refuses what encoding leaves unchanged: URLs resolve dots away, and an empty id names
 * another path.
 */
function pathPart(name: string, what: string, id: string): string {
  if (typeof id !== 'string' || /^\.{0,2}$/.test(id)) throw invalidInput(`path ${name}`, `must be ${what}`);
  return encodeURIComponent(id);
}
