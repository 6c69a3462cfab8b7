import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AMOUNT_MAX } from '../../src/shared/balance.ts';
import { decodeEvents, encodeEvent, encodeEventBatch } from '../../src/shared/events.ts';

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
  actor: fc.option(fc.stringMatching(/^[A-Za-z0-9._:-]{1,64}$/)),
  createdAt: fc.date({ min: new Date('2000-01-01'), max: new Date('2100-01-01'), noInvalidDate: true }),
});

describe('events', () => {
  it('decode to the change that was encoded', () => {
    fc.assert(
      fc.property(changes, (change) => {
        expect(decodeEvents(encodeEvent(change))).toEqual([change]);
      }),
    );
  });

  it('decode from a batch in their order, with and without a trace', () => {
    const traceparent = fc.option(fc.constant('00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'));
    fc.assert(
      fc.property(fc.array(fc.tuple(changes, traceparent), { minLength: 1, maxLength: 20 }), (pairs) => {
        const batch = encodeEventBatch(pairs.map(([change, trace]) => ({ ...change, traceparent: trace })));
        expect(decodeEvents(batch)).toEqual(pairs.map(([change]) => change));
      }),
    );
  });

  it('of which one is none make the whole batch none', () => {
    expect(decodeEvents(Buffer.from('[]'))).toBeUndefined();
    const [change] = fc.sample(changes, 1);
    const good = JSON.parse(encodeEvent(change!).toString());
    expect(decodeEvents(Buffer.from(JSON.stringify([good, null])))).toBeUndefined();
  });

  it('of other bytes decode to nothing, without an error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(decodeEvents(Buffer.from(bytes))).toBeUndefined();
      }),
    );
  });
});
