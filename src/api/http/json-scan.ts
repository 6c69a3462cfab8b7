// Scans the bytes of a JSON text as they arrive, in one pass that takes 1 ms per megabyte. A text
// that consists mostly of names takes hundreds of times as long to parse and check, so it is
// refused here, before it is parsed or read further.

/** The deepest of our bodies has 5: the metadata, or a leg, of one of many transfers. */
const DEPTH_MAX = 8;
/** Names of one object: metadata has up to 16, everything else fewer. */
const NAMES_MAX = 64;
/**
 * Items of one list. Twice what any list may hold, so that a list that is slightly too long gets
 * the message with its own limit.
 */
const ITEMS_MAX = 2000;
/**
 * Names and items in all: a transfer of 100 legs has about 500. A thousand new names take the
 * parser 3 ms and more.
 */
const VALUES_MAX = 1000;
/**
 * A quoted string, as written: a value of metadata has 1,024 bytes, and six times as many where all
 * are escaped.
 */
const TEXT_BYTES_MAX = 8192;

/** An object or a list. */
export interface Part {
  /** Of its first byte, and of the first one after it; where it has none, infinite. */
  start: number;
  end: number;
  /** Members of objects in it, each as often as it is written. */
  names: number;
}

const STRING = 1;
const NAME = 2;
const COMMA = 3;
const OBJECT = 4;
const LIST = 5;
const END = 6;
const DIGIT = 7;
const FRACTION = 8;
/** What a byte means outside of texts. */
const KINDS = new Uint8Array(256);
const BYTES = {
  '"': STRING,
  ':': NAME,
  ',': COMMA,
  '{': OBJECT,
  '[': LIST,
  '}]': END,
  '0123456789': DIGIT,
  '.eE': FRACTION,
};
for (const [bytes, kind] of Object.entries(BYTES)) for (const byte of Buffer.from(bytes)) KINDS[byte] = kind;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const TOO_MANY_ITEMS = `holds a list of more than ${ITEMS_MAX} items`;
/** Of an item of a list of the outermost object. */
const ITEM_DEPTH = 3;

/** The text need not be JSON: counts are correct as far as a parser would get. */
export class JsonScan {
  /**
   * Objects and lists that are items of a list of the outermost object, if those are checked
   * separately.
   */
  readonly items: Part[] = [];
  /** Members of objects outside of them. */
  names = 0;
  /** Whether a number has a fraction or an exponent. */
  hasFraction = false;
  /** Whether the name of a member is written with an escape. */
  hasEscapedName = false;
  /** A sentence where it is too much. */
  excess: string | undefined;
  readonly #areItemsApart: boolean;
  #at = 0;
  /** The first byte of the quoted string in progress; else -1. */
  #textAt = -1;
  /** Whether that string, or the last one, has an escape. */
  #isEscaped = false;
  #before = 0;
  #depth = 0;
  #values = 0;
  #item: Part | undefined;
  /** Around the item. */
  #outer = { names: 0, values: 0 };
  /** For each open object or list, from the outside in: its names or commas. */
  readonly #counts: number[] = [0];
  readonly #areLists: boolean[] = [false];

  /** @param areItemsApart each item counts for itself, and the rest too. */
  constructor(areItemsApart: boolean) {
    this.#areItemsApart = areItemsApart;
  }

  /**
   * Continues where it stopped. @param text from its beginning, in whatever buffer. @param length
   * of what has come.
   */
  advance(text: Uint8Array, length: number): void {
    let at = this.#at;
    let before = this.#before;
    while (at < length && this.excess === undefined) {
      if (this.#textAt >= 0) {
        at = this.#endOfText(text, at, length);
        continue;
      }
      const kind = KINDS[text[at] as number] as number;
      // Not after a digit, it is a letter of true or false, or no JSON.
      if (kind === FRACTION && before === DIGIT) this.hasFraction = true;
      before = kind;
      if (kind === STRING) this.#beginText(at);
      else if (kind !== 0 && kind < DIGIT) this.#see(kind, at);
      at += 1;
    }
    this.#at = at;
    this.#before = before;
  }

  #see(kind: number, at: number): void {
    const depth = this.#depth;
    if (kind === OBJECT || kind === LIST) {
      if (depth === DEPTH_MAX) this.excess = `is nested more than ${DEPTH_MAX} deep`;
      else this.#open(kind === LIST, at);
    } else if (kind === END) {
      if (depth === ITEM_DEPTH && this.#item) this.#endItem(this.#item, at + 1);
      if (depth > 0) this.#depth -= 1;
    } else if (kind === NAME) {
      this.names += 1;
      if (this.#isEscaped) this.hasEscapedName = true;
      this.#count();
      if ((this.#counts[depth] as number) > NAMES_MAX) this.excess = `holds an object of more than ${NAMES_MAX} names`;
    } else if (this.#areLists[depth]) {
      this.#count();
      if ((this.#counts[depth] as number) >= ITEMS_MAX) this.excess = TOO_MANY_ITEMS;
    }
  }

  #count(): void {
    this.#counts[this.#depth] = (this.#counts[this.#depth] as number) + 1;
    if (this.#isListOfItems()) return; // its length is bounded
    this.#values += 1;
    if (this.#values > VALUES_MAX)
      this.excess = `holds ${this.#item ? 'an item of ' : ''}more than ${VALUES_MAX} names and items`;
  }

  #open(isList: boolean, at: number): void {
    if (this.#isListOfItems()) {
      this.#item = { start: at, end: Number.POSITIVE_INFINITY, names: 0 };
      if (this.items.push(this.#item) > ITEMS_MAX) this.excess = TOO_MANY_ITEMS;
      this.#outer = { names: this.names, values: this.#values };
      this.names = 0;
      this.#values = 0;
    }
    this.#depth += 1;
    this.#counts[this.#depth] = 0;
    this.#areLists[this.#depth] = isList;
  }

  #isListOfItems(): boolean {
    return this.#areItemsApart && this.#depth === ITEM_DEPTH - 1 && this.#areLists[2] === true && !this.#areLists[1];
  }

  #endItem(item: Part, end: number): void {
    item.end = end;
    item.names = this.names;
    this.names = this.#outer.names;
    this.#values = this.#outer.values;
    this.#item = undefined;
  }

  #beginText(at: number): void {
    this.#textAt = at;
    this.#isEscaped = false;
  }

  /** @returns the position after the quote that ends it, or after everything that has arrived. */
  #endOfText(text: Uint8Array, from: number, length: number): number {
    let at = from;
    for (; at < length && text[at] !== QUOTE; at += 1) {
      if (text[at] !== BACKSLASH) continue;
      this.#isEscaped = true;
      at += 1;
    }
    if (at - this.#textAt > TEXT_BYTES_MAX) this.excess = `holds a text of more than ${TEXT_BYTES_MAX} bytes`;
    if (at >= length) return at;
    this.#textAt = -1;
    return at + 1;
  }
}
