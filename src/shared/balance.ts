// The field values that HTTP, events and database agree on, as zod schemas.
import { z } from 'zod';

/** Largest size of an amount or a balance: 2^53 - 1 minor units, exact in every JSON client. */
export const AMOUNT_MAX = Number.MAX_SAFE_INTEGER;

/** Chosen by the client. Not "." or "..": URL libraries resolve those away, so the account could not be read by its path. */
export const accountId = z
  .string()
  .regex(
    /^(?!\.{1,2}$)[A-Za-z0-9._:-]{1,64}$/,
    'must be 1 to 64 characters of A-Z a-z 0-9 . _ : - and not "." or ".."',
  );

/** Minor units: a credit is positive, a debit negative. */
export const amount = z
  .int({ error: `must be a whole number of minor units from -${AMOUNT_MAX} to ${AMOUNT_MAX}` })
  .refine((value) => value !== 0, 'must not be 0');

/** Minor units of what moves, where the call says which way. */
export const positiveAmount = z
  .int({ error: `must be a whole number of minor units from 1 to ${AMOUNT_MAX}` })
  .min(1, `must be from 1 to ${AMOUNT_MAX}`);

/** The caller's own note on a change, such as an order number. */
export const reference = z
  .string()
  .min(1, 'must have 1 to 255 characters; leave it out when there is none')
  .max(255, 'must have 1 to 255 characters')
  // A control character or half a surrogate pair would not come back from the database as it was sent.
  .refine(
    (value) => value.isWellFormed() && !/\p{Cc}/u.test(value),
    'must be well-formed text without control characters',
  );

const METADATA_NAMES_MAX = 16;
const METADATA_BYTES_MAX = 1024;
const METADATA = `must be up to ${METADATA_NAMES_MAX} texts by name, of ${METADATA_BYTES_MAX} bytes in all`;

/** More notes on a change, by name. They are hashed into the ledger for good: no personal data. */
export const metadata = z
  // `__proto__` would set the prototype of what JSON.parse makes of it.
  .record(
    z.string().regex(/^(?!__proto__$)[a-z0-9_.-]{1,40}$/, 'must be named by 1 to 40 characters of a-z 0-9 _ . -'),
    z.string().refine((value) => value.isWellFormed() && !value.includes('\0'), 'must be well-formed text without NUL'),
  )
  .refine((entries) => {
    const names = Object.keys(entries);
    return names.length >= 1 && names.length <= METADATA_NAMES_MAX;
  }, METADATA)
  .refine((entries) => Buffer.byteLength(Object.entries(entries).flat().join('')) <= METADATA_BYTES_MAX, METADATA);

/** Name of a client, as its API key carries it. */
export const actor = z.string().regex(/^[A-Za-z0-9._:-]{1,64}$/, 'must be 1 to 64 characters of A-Z a-z 0-9 . _ : -');

export const overdraftLimit = z
  .int({ error: `must be a whole number of minor units from 0 to ${AMOUNT_MAX}` })
  .min(0, `must be from 0 to ${AMOUNT_MAX}`);

/** The highest balance that a credit may leave, in minor units. */
export const maxBalance = overdraftLimit;

/** What an account counts, such as `USD/2` or `POINTS`. */
export const asset = z.string().regex(/^[A-Z0-9/._-]{1,20}$/, 'must be 1 to 20 characters of A-Z 0-9 / . _ -');

export const ACCOUNT_STATUSES = ['open', 'frozen', 'closed'] as const;
/** A frozen account takes no updates until it is open again; a closed one stays closed. */
export const accountStatus = z.enum(ACCOUNT_STATUSES);

/** Chosen by the client, within the account. */
export const holdId = accountId;
/** Whole seconds until a hold expires: a year at most. */
export const expiresInSeconds = z
  .int({ error: 'must be a whole number of seconds from 1 to 31536000' })
  .min(1, 'must be from 1 to 31536000')
  .max(31_536_000, 'must be from 1 to 31536000');

export const HOLD_STATUSES = ['active', 'captured', 'released', 'expired'] as const;

/** Counts the changes of an account: 0 is its opening, then 1, 2, 3, without a gap. */
export const version = z.int().min(0);

/** When the database began to speak for itself: milliseconds since 1970, or later. docs/events.md */
export const epoch = z.int().min(1);

/** UTC, in milliseconds. PostgreSQL knows no year 0. */
export const timestamp = z.iso
  .datetime({ precision: 3 })
  .refine((text) => !text.startsWith('0000'), 'must be after year 0');

/** A time that somebody asks for, in any offset. @param error says how one is written. */
export const moment = (error = 'must be a time such as 2026-11-23T19:43:56.550Z') =>
  z
    .union([z.iso.datetime({ offset: true }), z.iso.datetime()], { error })
    .transform((text) => new Date(text))
    .refine((time) => time.getTime() > YEAR_1_MS && time.getTime() < YEAR_10000_MS, 'must be in the years 1 to 9999');
const YEAR_1_MS = Date.parse('0001-01-01T00:00:00Z');
const YEAR_10000_MS = Date.parse('+010000-01-01T00:00:00Z');
