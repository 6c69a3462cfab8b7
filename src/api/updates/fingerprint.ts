// What a request under an idempotency key was, in 16 bytes: a retry has the same, anything else another. Releases have to agree
// on it, since they may serve the two: so its text is fixed here, whatever becomes of the code that reads requests.
import { hash } from 'node:crypto';

/** Bytes of the SHA-256, two digits each: the rest would only fill the table. */
const DIGITS = 32;

/**
 * @param operation the name of the call.
 * @param fields what the request says: JSON values by name, at any depth. What it leaves out is undefined, which counts for nothing;
 * the order of names counts for nothing either, that of lists does.
 * @returns hexadecimal digits.
 */
export function fingerprintOf(operation: string, fields: object): string {
  return hash('sha256', JSON.stringify([operation, sorted(fields)]), 'hex').slice(0, DIGITS);
}

function sorted(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(sorted);
  const present = Object.entries(value).filter(([, member]) => member !== undefined);
  present.sort(([one], [other]) => (one < other ? -1 : 1));
  return present.map(([name, member]) => [name, sorted(member)]);
}
