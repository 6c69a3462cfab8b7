// What a request under an idempotency key was, in 16 bytes: a retry has the same, anything else another. Releases have to agree
// on it, since they may serve the two: so its text is fixed here, whatever becomes of the code that reads requests.
import { hash } from 'node:crypto';

/** Bytes of the SHA-256, two digits each: the rest would only fill the table. */
const DIGITS = 32;

/**
 * @param operation the name of the call.
 * @param fields what the request says, by name; what it leaves out is undefined, which counts for nothing.
 * @returns hexadecimal digits.
 */
export function fingerprintOf(operation: string, fields: Record<string, string | number | undefined>): string {
  const present = Object.entries(fields).filter(([, value]) => value !== undefined);
  present.sort(([one], [other]) => (one < other ? -1 : 1));
  return hash('sha256', JSON.stringify([operation, ...present]), 'hex').slice(0, DIGITS);
}
