import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ACCOUNT_STATUSES, AMOUNT_MAX, HOLD_STATUSES } from '../../src/shared/balance.ts';
import type { Change } from '../../src/shared/change.ts';
import { CHANGE_TYPES } from '../../src/shared/contract.ts';
import { decodeEvents, encodeEvent, encodeEventBatch } from '../../src/shared/events.ts';

const id = fc.stringMatching(/^[A-Za-z0-9._:-]{1,64}$/).filter((text) => text !== '.' && text !== '..');
const minorUnits = fc.integer({ min: -AMOUNT_MAX, max: AMOUNT_MAX });
const positive = fc.integer({ min: 0, max: AMOUNT_MAX });
const date = fc.date({ min: new Date('2000-01-01'), max: new Date('2100-01-01'), noInvalidDate: true });
const none = fc.constant(null);
const hold = fc.record({
  holdId: id,
  holdStatus: fc.constantFrom(...HOLD_STATUSES),
  holdRemaining: positive,
  holdExpiresAt: fc.option(date),
});
const noHold = fc.record({ holdId: none, holdStatus: none, holdRemaining: none, holdExpiresAt: none });
const limits = fc.record({
  overdraftLimit: positive,
  maxBalance: fc.option(positive),
  status: fc.constantFrom(...ACCOUNT_STATUSES),
});
const noLimits = fc.record({ overdraftLimit: none, maxBalance: none, status: none });
const others = fc.record({
  accountId: id,
  version: positive,
  epoch: fc.integer({ min: 1, max: AMOUNT_MAX }),
  previousEpoch: fc.option(fc.integer({ min: 1, max: AMOUNT_MAX })),
  type: fc.constantFrom(...CHANGE_TYPES),
  asset: fc.stringMatching(/^[A-Z0-9/._-]{1,20}$/),
  amount: minorUnits,
  heldChange: minorUnits,
  balance: minorUnits,
  held: positive,
  reference: fc.option(
    fc
      .string({ unit: 'grapheme', minLength: 1, maxLength: 50 })
      .filter((text) => !/\p{Cc}/u.test(text) && text.length <= 255),
  ),
  actor: fc.option(fc.stringMatching(/^[A-Za-z0-9._:-]{1,64}$/)),
  metadata: fc.option(fc.constantFrom('{"order":"1"}', '{"a":"","b":"\\"é"}')),
  transferId: fc.option(id),
  reverses: fc.option(id),
  createdAt: date,
});
const changes: fc.Arbitrary<Change> = fc
  .tuple(others, fc.oneof(hold, noHold), fc.oneof(limits, noLimits))
  .map(([change, ofHold, ofLimits]) => ({ ...change, ...ofHold, ...ofLimits }));

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
