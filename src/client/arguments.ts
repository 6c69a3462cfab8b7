// Checks arguments: an unknown name is refused, never ignored. JavaScript has no such check, and
// TypeScript none for an object that was built elsewhere.

/** The names that an object may have; of a list, those of its elements. */
export type Known = { readonly [name: string]: true | readonly [Known] };

/** Every name of a type and no other, so that the compiler keeps them equal. */
export type Names<T> = { readonly [Name in keyof T & string]: NamesWithin<NonNullable<T[Name]>> };
type NamesWithin<T> = T extends readonly (infer Item extends object)[] ? readonly [Names<Item>] : true;

/** @param given What was passed, and what is known in it; a list of one: every element of an array. */
export type Argument = readonly [name: string, given: unknown, known: Known | readonly [Known]];

/** @throws TypeError that names the unknown option and the known ones. */
export function checkNames(method: string, ...given: readonly Argument[]): void {
  for (const [name, value, known] of given) checkValue(method, name, value, known, given);
}

function checkValue(
  method: string,
  place: string,
  value: unknown,
  known: Argument[2],
  given: readonly Argument[],
): void {
  if (isList(known)) {
    if (!Array.isArray(value)) throw new TypeError(`${method}(): ${place} must be an array`);
    for (const [index, one] of value.entries()) checkValue(method, `${place}[${index}]`, one, known[0], given);
    return;
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new TypeError(`${method}(): ${place} must be an object`);
  }
  for (const [name, within] of Object.entries(value)) {
    const names = Object.hasOwn(known, name) ? known[name] : undefined;
    if (names === undefined) throw unknownName(method, place, name, known, given);
    if (names !== true && within !== undefined) checkValue(method, `${place}.${name}`, within, names, given);
  }
}

function unknownName(method: string, place: string, name: string, known: Known, given: readonly Argument[]): TypeError {
  const owner = given.find(([, , other]) => other !== known && !isList(other) && Object.hasOwn(other, name));
  const where = owner ? ` It belongs in ${owner[0]}, another argument.` : '';
  return new TypeError(
    `${method}(): ${place}.${name} is unknown. Known names: ${Object.keys(known).join(', ')}.${where}`,
  );
}

function isList(known: Argument[2]): known is readonly [Known] {
  return Array.isArray(known);
}

/** @throws TypeError */
export function whole(name: string, value: number, max: number): number {
  if (Number.isInteger(value) && value >= 1 && value <= max) return value;
  throw new TypeError(`${name} must be a whole number from 1 to ${max}`);
}
