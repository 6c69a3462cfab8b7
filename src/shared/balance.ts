// The field values that HTTP, events and database agree on, as zod schemas.
import { z } from './zod.ts';

/** Largest size of an amount or a balance: 2^53 - 1 minor units, exact in every JSON client. */
export const AMOUNT_MAX = Number.MAX_SAFE_INTEGER;

/**
 * Text of one form. Its length is separate from the pattern, where code generators expect it, and
 * no pattern uses lookahead, which the regular expressions of Go and Rust lack.
 */
export const text = (charactersMax: number, form: RegExp, what: string) =>
  z
    .string()
    .min(1, { error: what, abort: true })
    .max(charactersMax, { error: what, abort: true })
    .regex(form, { error: what, abort: true });

/** Chosen by the client. Not "." or "..": URL libraries resolve those away, so the account could not be read by its path. */
export const accountId = text(
  64,
  /^(\.*[A-Za-z0-9_:-][A-Za-z0-9._:-]*|\.{3,})$/,
  'must be 1 to 64 characters of A-Z a-z 0-9 . _ : - and not "." or ".."',
);

/** A number in quotes has a sentence of its own, in zod.ts. */
const wholeNumber = (range: string) =>
  z.int({ error: ({ input }) => (typeof input === 'string' ? undefined : `must be a whole number ${range}`) });

/** Minor units: a credit is positive, a debit negative. */
export const amount = wholeNumber(`of minor units from -${AMOUNT_MAX} to ${AMOUNT_MAX}`).refine(
  (value) => value !== 0,
  'must not be 0',
);

/** Minor units of what moves, where the call says which way. */
export const positiveAmount = wholeNumber(`of minor units from 1 to ${AMOUNT_MAX}`).min(
  1,
  `must be from 1 to ${AMOUNT_MAX}`,
);

/** Of text for people: no control characters. As a regular expression for JSON Schema. */
export const NO_CONTROLS = '^[^\\x00-\\x1f\\x7f-\\x9f]*$';

const REFERENCE_CHARACTERS_MAX = 255;
const REFERENCE = `must have 1 to ${REFERENCE_CHARACTERS_MAX} characters; leave it out when there is none`;

const REFERENCE_FORM = { minLength: 1, maxLength: REFERENCE_CHARACTERS_MAX, pattern: NO_CONTROLS };

/** The client's own note on a change, such as an order number, as events and entries carry it. */
export const reference = z
  .string()
  .refine((value) => value !== '' && isAtMost(REFERENCE_CHARACTERS_MAX, value), REFERENCE)
  // A control character or half a surrogate pair would not come back from the database as it was sent.
  .refine(
    (value) => value.isWellFormed() && !/\p{Cc}/u.test(value),
    'must be well-formed text without control characters',
  )
  .meta(REFERENCE_FORM);

/** In characters as JSON Schema, PostgreSQL and most languages count them; a string's own length counts some as two. */
function isAtMost(charactersMax: number, value: string): boolean {
  if (value.length <= charactersMax) return true;
  return value.length <= 2 * charactersMax && [...value].length <= charactersMax;
}

/**
 * Characters that are invisible or change how others are shown: a right-to-left override shows
 * 10-2001 as 1002-01, and a space of no width makes two references of what looks like one. By
 * property, so that what Unicode adds counts too. Joiners and variation selectors are accepted:
 * Persian, Indic scripts and emoji are written with them.
 */
const UNSEEN = /[[\p{Zl}\p{Zp}\p{Cf}\p{Default_Ignorable_Code_Point}]--[\p{Join_Control}\p{Variation_Selector}]]/v;
const UNSEEN_SAID =
  'invisible characters and those that change the text direction are refused (Unicode `Zl`, `Zp`, `Cf`, `Default_Ignorable_Code_Point`), except joiners and variation selectors';

/**
 * For requests only. Accepted text is a fact, and Unicode evolves: events and entries are read
 * without this check.
 */
const givenText = (text: z.ZodString) =>
  text.refine((value) => !UNSEEN.test(value), {
    error: ({ input }) => `must not hold U+${codePoint(UNSEEN.exec(String(input))?.[0])}: ${UNSEEN_SAID}`,
  });
const codePoint = (character = '') => character.codePointAt(0)?.toString(16).toUpperCase().padStart(4, '0');

export const givenReference = givenText(reference).meta({
  ...REFERENCE_FORM,
  description: `Your own note, such as an order number. Control characters, ${UNSEEN_SAID}.`,
});

const METADATA_NAMES_MAX = 16;
const METADATA_BYTES_MAX = 1024;
const METADATA = `must be up to ${METADATA_NAMES_MAX} texts by name, ${METADATA_BYTES_MAX} bytes in total`;

/**
 * More notes on a change, by name. They are hashed into the ledger permanently: no personal data.
 *
 */
const METADATA_FORM = { minProperties: 1, maxProperties: METADATA_NAMES_MAX };
const VALUE_FORM = { maxLength: METADATA_BYTES_MAX, pattern: '^[^\\x00]*$' };

const metadataOf = (value: z.ZodString) =>
  z
    // `__proto__` would set the prototype of what JSON.parse makes of it.
    .record(
      text(40, /^[a-z0-9_.-]+$/, 'must be named by 1 to 40 characters of a-z 0-9 _ . -').refine(
        (name) => name !== '__proto__',
        'must not be named __proto__',
      ),
      value.meta(VALUE_FORM),
    )
    .refine((entries) => {
      const names = Object.keys(entries);
      return names.length >= 1 && names.length <= METADATA_NAMES_MAX;
    }, METADATA)
    .refine((entries) => Buffer.byteLength(Object.entries(entries).flat().join('')) <= METADATA_BYTES_MAX, METADATA);

const note = z
  .string()
  .refine((value) => value.isWellFormed() && !value.includes('\0'), 'must be well-formed text without NUL');

/** As events and entries carry it. */
export const metadata = metadataOf(note).meta(METADATA_FORM);
export const givenMetadata = metadataOf(givenText(note)).meta({
  ...METADATA_FORM,
  description: `More notes, by name. Kept and hashed permanently: no personal data. In the texts, ${UNSEEN_SAID}.`,
});

/** Name of a client, as its API key carries it. */
export const actor = text(64, /^[A-Za-z0-9._:-]+$/, 'must be 1 to 64 characters of A-Z a-z 0-9 . _ : -');

export const overdraftLimit = wholeNumber(`of minor units from 0 to ${AMOUNT_MAX}`).min(
  0,
  `must be from 0 to ${AMOUNT_MAX}`,
);

/** The highest balance that a credit may leave, in minor units. */
export const maxBalance = overdraftLimit;

/** What an account counts, such as `USD/2` or `POINTS`. */
export const asset = text(20, /^[A-Z0-9/._-]+$/, 'must be 1 to 20 characters of A-Z 0-9 / . _ -');

export const ACCOUNT_STATUSES = ['open', 'frozen', 'closed'] as const;
/** A frozen account takes no updates until it is open again; a closed one stays closed. */
export const accountStatus = z.enum(ACCOUNT_STATUSES);

/** Chosen by the client, within the account. */
export const holdId = accountId;
/** Whole seconds until a hold expires: a year at most. */
export const expiresInSeconds = wholeNumber('of seconds from 1 to 31536000')
  .min(1, 'must be from 1 to 31536000')
  .max(31_536_000, 'must be from 1 to 31536000');

export const HOLD_STATUSES = ['active', 'captured', 'released', 'expired'] as const;

/** Counts the changes of an account: 0 is its opening, then 1, 2, 3, without a gap. */
export const version = z.int().min(0);

/**
 * Identifies a history of the database: milliseconds since 1970 at its start, or later.
 * docs/events.md
 */
export const epoch = z.int().min(1);

/** UTC, in milliseconds. PostgreSQL knows no year 0. */
export const timestamp = z.iso
  .datetime({ precision: 3 })
  .refine((text) => !text.startsWith('0000'), 'must be after year 0');

const MOMENT_CHARACTERS_MAX = 40;

/** A time in a request, with any offset. @param error says how one is written. */
export const moment = (error = 'must be a time such as 2026-11-23T19:43:56.550Z') =>
  z.iso
    .datetime({ offset: true, error, abort: true })
    .max(MOMENT_CHARACTERS_MAX, error)
    .transform((text) => new Date(text))
    .refine((time) => time.getTime() > YEAR_1_MS && time.getTime() < YEAR_10000_MS, 'must be in the years 1 to 9999');
const YEAR_1_MS = Date.parse('0001-01-01T00:00:00Z');
const YEAR_10000_MS = Date.parse('+010000-01-01T00:00:00Z');
