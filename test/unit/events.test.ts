import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ACCOUNT_STATUSES, AMOUNT_MAX, HOLD_STATUSES } from '../../src/shared/balance.ts';
import type { Change } from '../../src/shared/change.ts';
import { CHANGE_TYPES } from '../../src/shared/contract.ts';
import { decodeEvents, encodeEvent, encodeEventBatch } from '../../src/shared/events.ts';
import { isWithinBounds, MESSAGE_BYTES_MAX, MESSAGE_EVENTS_MAX } from '../../src/shared/message-bounds.ts';

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
      .filter((text) => !/\p{Cc}/u.test(text) && [...text].length <= 255),
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

  it.each(['a\u001fb', 'a\u0000b', '\ud800', '', 'a b', 'a'.repeat(129)])(
    'are none where an id of them could shift others in a batch, or fail it: %j',
    (given) => {
      const [change] = fc.sample(changes, { numRuns: 1, seed: 1 }) as [Change];
      const text = encodeEvent(change).toString();
      for (const name of ['transferId', 'reverses']) {
        const forged = JSON.parse(text);
        expect(decodeEvents(Buffer.from(JSON.stringify(forged)))).toBeDefined();
        forged.data[name] = given;
        expect(decodeEvents(Buffer.from(JSON.stringify(forged)))).toBeUndefined();
      }
    },
  );

  it('of other bytes decode to nothing, without an error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(decodeEvents(Buffer.from(bytes))).toBeUndefined();
      }),
    );
  });
});

/** Each member as long as it can be. */
function largest(): Change & { traceparent: string } {
  const longId = 'a'.repeat(64);
  const longEvent = `${longId}:${AMOUNT_MAX}:${AMOUNT_MAX.toString(36)}`;
  const names = Array.from({ length: 16 }, (_, index) => String.fromCharCode(0x61 + index));
  const escapes = '\u0001'.repeat(1024 - names.length);
  const metadata = Object.fromEntries(names.map((name, index) => [name, index === 0 ? escapes : '']));
  return {
    ...{ accountId: longId, version: AMOUNT_MAX, epoch: AMOUNT_MAX, previousEpoch: AMOUNT_MAX },
    ...{ type: 'balance.credited', asset: 'A'.repeat(20), amount: -AMOUNT_MAX, heldChange: -AMOUNT_MAX },
    ...{ balance: -AMOUNT_MAX, held: AMOUNT_MAX, createdAt: new Date('2026-11-23T19:43:56.550Z') },
    ...{ reference: '\u{10ffff}'.repeat(255), actor: longId, metadata: JSON.stringify(metadata) },
    ...{ transferId: longEvent, reverses: longEvent, holdId: longId, holdStatus: 'captured' },
    ...{ holdRemaining: AMOUNT_MAX, holdExpiresAt: new Date('2026-11-23T19:43:56.550Z') },
    ...{ overdraftLimit: AMOUNT_MAX, maxBalance: AMOUNT_MAX, status: 'frozen' },
    traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
  };
}

describe('the bounds of a message', () => {
  const many = (count: number) => encodeEventBatch(Array.from({ length: count }, largest));

  it('take as many of the largest events as a message has', () => {
    expect(many(1).length).toBe(8472 + '[]'.length);
    expect(decodeEvents(many(MESSAGE_EVENTS_MAX))).toHaveLength(MESSAGE_EVENTS_MAX);
    expect(decodeEvents(many(MESSAGE_EVENTS_MAX + 1))).toBeUndefined();
  });

  it('take the largest event after a newer release has doubled its members', () => {
    const event = JSON.parse(encodeEvent(largest()).toString());
    const members = Object.fromEntries(Array.from({ length: 40 }, (_, index) => [`m${index}`, 1]));
    const newer = { ...event, data: { ...event.data, ...members } };
    expect(isWithinBounds(Buffer.from(JSON.stringify(Array.from({ length: 100 }, () => newer))))).toBe(true);
  });

  it.each([
    ['objects', '{}'],
    ['arrays', '[]'],
    ['numbers', '0'],
    ['texts with quotes in them', '"\\\\\\""'],
    ['members', '{"a":{"b":[]}}'],
  ])('take no body of too many %s, and as many as 100 events have', (_, one) => {
    const body = (count: number) => Buffer.from(`[${Array.from({ length: count }, () => one).join(',')}]`);
    expect(isWithinBounds(body(2400))).toBe(true);
    expect(isWithinBounds(body(10_000))).toBe(false);
  });

  it('take what a text holds for text, whatever it is', () => {
    for (const text of ['{'.repeat(90_000), '[,'.repeat(90_000), '\\",{['.repeat(50_000), 'é,"'.repeat(50_000)]) {
      expect(isWithinBounds(Buffer.from(JSON.stringify([text])))).toBe(true);
    }
  });

  it('say of every body that is JSON how many commas, objects and arrays are in it', () => {
    const valuesIn = (json: unknown): number => {
      if (Array.isArray(json))
        return 1 + Math.max(0, json.length - 1) + json.reduce((sum, one) => sum + valuesIn(one), 0);
      if (json === null || typeof json !== 'object') return 0;
      const members = Object.values(json);
      return 1 + Math.max(0, members.length - 1) + members.reduce((sum: number, one) => sum + valuesIn(one), 0);
    };
    fc.assert(
      fc.property(fc.json(), fc.integer({ min: 0, max: 20 }), (text, more) => {
        const json = JSON.parse(text);
        const rest = 10_000 - 1 - valuesIn([json]) - more;
        const body = [json, ...Array.from({ length: rest }, () => 0)];
        expect(isWithinBounds(Buffer.from(JSON.stringify(body)))).toBe(true);
        expect(
          isWithinBounds(Buffer.from(JSON.stringify([...body, ...Array.from({ length: more + 1 }, () => 0)]))),
        ).toBe(false);
      }),
    );
  });

  it('take no body of more bytes', () => {
    expect(isWithinBounds(Buffer.alloc(MESSAGE_BYTES_MAX, ' '))).toBe(true);
    expect(isWithinBounds(Buffer.alloc(MESSAGE_BYTES_MAX + 1, ' '))).toBe(false);
  });
});
