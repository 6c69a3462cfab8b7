// The form of an API key, for the command that makes it and the API that checks it:
//
//   hlb_ <12: public id> _ <43: secret, 256 random bits> <6: CRC-32 of all before it>     0-9 A-Z a-z
//
// The prefix lets secret scanners find one that leaked, the checksum distinguishes a mistyped token
// from an unknown one without a query, and the id finds the row whose hash is compared.
import { hash, randomInt, timingSafeEqual } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { z } from './zod.ts';

/** read: accounts and histories. write: balance updates. admin: create and change accounts. None includes another. */
export const SCOPES = ['read', 'write', 'admin'] as const;
export const scope = z.enum(SCOPES);
export type Scope = z.infer<typeof scope>;

/**
 * What a key may be bound to: a prefix of account ids that ends in a separator, so that one
 * client's prefix is not part of another's.
 */
export const accountPrefix = z
  .string()
  .regex(
    /^[A-Za-z0-9._:-]{0,63}[:._-]$/,
    'must be 1 to 64 characters of A-Z a-z 0-9 . _ : -, the last of them one of . _ : -',
  );

/** Active keys of the whole system: each process of the API holds all of them. */
export const ACTIVE_KEYS_MAX = 1000;
/** Active keys of one client: the one in use, and the one that is to replace it. */
export const ACTIVE_KEYS_OF_ACTOR_MAX = 2;

const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const PREFIX = 'hlb_';
const ID_LENGTH = 12;
const SECRET_LENGTH = 43; // 62^43 > 2^256
const CHECKSUM_LENGTH = 6;
const ID_START = PREFIX.length;
const CHECKSUM_START = ID_START + ID_LENGTH + 1 + SECRET_LENGTH;
const FORM = new RegExp(`^${PREFIX}[0-9A-Za-z]{${ID_LENGTH}}_[0-9A-Za-z]{${SECRET_LENGTH + CHECKSUM_LENGTH}}$`);

/** A new token. Only its holder ever has it; keep {@link hashOf} it. */
export function createToken(): { id: string; token: string } {
  const id = random(ID_LENGTH);
  const start = `${PREFIX}${id}_${random(SECRET_LENGTH)}`;
  return { id, token: start + checksumOf(start) };
}

/**
 * The public id in a text with the form of a token, otherwise undefined. Does not mean that there
 * is such a key.
 */
export function idOf(token: string): string | undefined {
  return FORM.test(token) ? token.slice(ID_START, ID_START + ID_LENGTH) : undefined;
}

/** Whether a token is whole: false for one that was cut, mistyped or made up. */
export function isWhole(token: string): boolean {
  return token.slice(CHECKSUM_START) === checksumOf(token.slice(0, CHECKSUM_START));
}

export function hashOf(token: string): Buffer {
  return hash('sha256', token, 'buffer');
}

/** For each comparison the same 32 bytes: a new buffer each time costs more than the hash. */
const compared = Buffer.alloc(32);

/** Takes the same time wherever the two differ. */
export function matches(token: string, tokenSha256: Buffer): boolean {
  compared.write(hash('sha256', token, 'binary'), 'binary');
  return timingSafeEqual(compared, tokenSha256);
}

function random(length: number): string {
  return Array.from({ length }, () => ALPHABET[randomInt(ALPHABET.length)]).join('');
}

function checksumOf(text: string): string {
  let digits = '';
  for (let rest = crc32(text); digits.length < CHECKSUM_LENGTH; rest = Math.floor(rest / ALPHABET.length)) {
    digits = ALPHABET[rest % ALPHABET.length] + digits;
  }
  return digits;
}
