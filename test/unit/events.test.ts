import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AMOUNT_MAX } from '../../src/shared/balance.ts';
import { decodeEvent, encodeEvent } from '../../src/shared/events.ts';

const changes = fc.record({
  accountId: fc.stringMatching(/^[A-Za-z0-9._:-]{1,64}$/).filter((id) => id !== '.' && id !== '..'),
  version: fc.integer({ min: 1, max: AMOUNT_MAX }),
  amount: fc.integer({ min: -AMOUNT_MAX, max: AMOUNT_MAX }).filter((amount) => amount !== 0),
  balance: fc.integer({ min: -AMOUNT_MAX, max: AMOUNT_MAX }),
  reference: fc.option(
    fc
      .string({ unit: 'grapheme', minLength: 1, maxLength: 50 })
      .filter((text) => !/\p{Cc}/u.test(text) && text.length <= 255),
  ),
  createdAt: fc.date({ min: new Date('2000-01-01'), max: new Date('2100-01-01'), noInvalidDate: true }),
});

describe('events', () => {
  it('decode to the change that was encoded', () => {
    fc.assert(
      fc.property(changes, (change) => {
        expect(decodeEvent(encodeEvent(change))).toEqual(change);
      }),
    );
  });

  it('of other bytes decode to nothing, without an error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(decodeEvent(Buffer.from(bytes))).toBeUndefined();
      }),
    );
  });
});
