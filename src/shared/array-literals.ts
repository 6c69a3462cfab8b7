// Arrays as PostgreSQL reads them, for parameters: the driver's own encoding costs six times as
// much, and quoted texts cost ten times as much as joined ones.

export type Literal = string | null;

/** For values that need no quotes. */
export function words(values: readonly (string | number | null)[]): string {
  return `{${values.map((value) => value ?? 'NULL').join(',')}}`;
}

export function wordsOrNull(values: readonly (string | number | null)[]): Literal {
  return values.every((value) => value === null) ? null : words(values);
}

/**
 * U+001F, the unit separator. No text that the service accepts contains a control character, in requests or in events
 * (events.ts): one that did would shift the texts after it.
 */
const SEPARATOR = '\x1f';

/** Texts that are not empty and hold no control character; null is an element too. Read by {@link textsIn}. */
export function texts(values: readonly (string | null)[]): string {
  return values.join(SEPARATOR); // null as ''
}

export function textsOrNull(values: readonly (string | null)[]): Literal {
  return values.every((value) => value === null) ? null : texts(values);
}

/** SQL: the array of {@link texts}. A list that is one null is read as an empty one. */
export function textsIn(parameter: string): string {
  return `string_to_array(${parameter}, E'\\x1f', '')`;
}
