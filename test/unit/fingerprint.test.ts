import fc from 'fast-check';
import { expect, it } from 'vitest';
import { fingerprintOf, fingerprintOfList } from '../../src/api/updates/fingerprint.ts';

const item = fc.dictionary(fc.string(), fc.oneof(fc.integer(), fc.string(), fc.constant(undefined), fc.boolean()));

it('of a list is the same, made in pieces or at once', () =>
  fc.assert(
    fc.asyncProperty(fc.array(item), fc.string(), async (items, operation) => {
      expect(await fingerprintOfList(operation, 'updates', items, () => undefined)).toBe(
        fingerprintOf(operation, { updates: items }),
      );
    }),
  ));

it('stays what it was, whatever becomes of the code: keys are kept across releases', () => {
  const updates = [
    { accountId: 'a', amount: 1, metadata: { b: '2', a: '1' } },
    { amount: -1, accountId: 'b' },
  ];
  expect(fingerprintOf('balance-updates', { updates })).toBe('2d8067bc39a78373c7a19af913cf5a8a');
});
