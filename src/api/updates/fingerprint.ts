// A digest of a request with an idempotency key, in 16 bytes: a retry has the same, any other
// request a different one. Releases have to agree on it, because different releases may serve a
// request and its retry: so the hashed text is fixed here, independently of the code that reads
// requests.
import { createHash, hash } from 'node:crypto';

/** Bytes of the SHA-256, two digits each: the rest would only fill the table. */
const DIGITS = 32;

/**
 * @param operation the name of the call.
 * @param fields what the request says: JSON values by name, at any depth. What it leaves out is
 * undefined, which is ignored; the order of names is ignored too, the order of lists is not.
 * @returns hexadecimal digits.
 */
export function fingerprintOf(operation: string, fields: object): string {
  return hash('sha256', JSON.stringify([operation, sorted(fields)]), 'hex').slice(0, DIGITS);
}

/** The same for fields that are one list, in pieces: for a large request it takes long. */
export async function fingerprintOfList(
  operation: string,
  name: string,
  items: readonly object[],
  pause: () => Promise<void> | undefined,
): Promise<string> {
  const sha256 = createHash('sha256').update(`[${JSON.stringify(operation)},[[${JSON.stringify(name)},[`);
  let separator = '';
  for (const item of items) {
    await pause();
    sha256.update(separator + JSON.stringify(sorted(item)));
    separator = ',';
  }
  return sha256.update(']]]]').digest('hex').slice(0, DIGITS);
}

function sorted(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(sorted);
  const present = Object.entries(value).filter(([, member]) => member !== undefined);
  present.sort(([one], [other]) => (one < other ? -1 : 1));
  return present.map(([name, member]) => [name, sorted(member)]);
}
