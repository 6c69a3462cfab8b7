// How large a message of events can be. Anyone who may publish to the exchange reaches everyone who
// reads events, and JSON.parse makes 20 bytes and more of each byte: 15 MB of `{},` took 13 s and
// 570 MB. So anyone who reads a message checks its size first, and refuses what is larger than
// anything the relay writes. Without zod: the client is published with it.

/** Events in one message. */
export const MESSAGE_EVENTS_MAX = 100;
/**
 * Including the separator: the largest that can be written has 8,472, with all members and metadata
 * that is all escapes.
 */
const EVENT_BYTES_MAX = 10_000;
/** Of a body: 1 MB. */
export const MESSAGE_BYTES_MAX = MESSAGE_EVENTS_MAX * EVENT_BYTES_MAX;
/** Objects, arrays and commas of one event: 49 where it has all members. A newer release may add some. */
const EVENT_VALUES_MAX = 100;
const MESSAGE_VALUES_MAX = MESSAGE_EVENTS_MAX * EVENT_VALUES_MAX;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const OBJECT = 0x7b;
const ARRAY = 0x5b;

/**
 * Whether a body is small enough to be parsed. Checks each byte, which costs a seventh of decoding
 * an event.
 */
export function isWithinBounds(body: Uint8Array): boolean {
  const { length } = body;
  if (length > MESSAGE_BYTES_MAX) return false;
  let values = 1;
  for (let at = 0; at < length; at += 1) {
    const byte = body[at];
    if (byte === QUOTE) at = endOfText(body, at + 1);
    else if (byte === COMMA || byte === OBJECT || byte === ARRAY) {
      values += 1;
      if (values > MESSAGE_VALUES_MAX) return false;
    }
  }
  return true;
}

/** The position of the quote that ends a string. */
function endOfText(body: Uint8Array, from: number): number {
  let at = from;
  while (at < body.length && body[at] !== QUOTE) at += body[at] === BACKSLASH ? 2 : 1;
  return at;
}
