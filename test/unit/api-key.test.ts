import crypto from 'node:crypto';
import { syncBuiltinESMExports } from 'node:module';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { createToken, hashOf, idOf, isWhole, matches } from '../../src/shared/api-key.ts';

afterEach(() => {
  vi.restoreAllMocks();
  syncBuiltinESMExports();
});

describe('an API key', () => {
  it('has a form that a secret scanner finds, with its public id in front', () => {
    const { id, token } = createToken();
    expect(token).toMatch(/^hlb_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}$/);
    expect(idOf(token)).toBe(id);
    expect(isWhole(token)).toBe(true);
  });

  it('is another one each time', () => {
    const made = Array.from({ length: 1000 }, createToken);
    expect(new Set(made.map(({ token }) => token)).size).toBe(1000);
    expect(new Set(made.map(({ id }) => id)).size).toBe(1000);
  });

  it('is not whole with any one character changed', () => {
    const { token } = createToken();
    for (let place = 0; place < token.length; place += 1) {
      const other = token[place] === 'x' ? 'y' : 'x';
      const changed = token.slice(0, place) + other + token.slice(place + 1);
      expect(idOf(changed) !== undefined && isWhole(changed), changed).toBe(false);
    }
  });

  it('matches the hash of itself only', () => {
    const { token } = createToken();
    expect(hashOf(token)).toEqual(crypto.createHash('sha256').update(token).digest());
    expect(matches(token, hashOf(token))).toBe(true);
    expect(matches(createToken().token, hashOf(token))).toBe(false);
  });

  it('is compared as a whole, whether it differs in the first character, in the last or not at all', () => {
    const compare = vi.spyOn(crypto, 'timingSafeEqual');
    syncBuiltinESMExports();
    const { token } = createToken();
    const kept = hashOf(token);
    for (const sent of [token, `x${token.slice(1)}`, `${token.slice(0, -1)}-`]) matches(sent, kept);
    expect(compare.mock.calls.map(([one, other]) => [one.byteLength, other.byteLength])).toEqual(
      Array(3).fill([32, 32]),
    );
  });
});
