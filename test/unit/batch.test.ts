import fc from 'fast-check';
import { expect, it } from 'vitest';
import { parametersOf } from '../../src/api/updates/batch.ts';
import type { Operation } from '../../src/api/updates/operation.ts';

/** Of the parameters: what each leg says of itself. */
const REFERENCES = 3;

function updateWith(reference: string): Operation {
  return {
    kind: 'update',
    legs: [{ accountId: 'a', amount: 1, reference, metadata: null, expectedVersion: null, upTo: false }],
    ...{ keyAccountId: 'a', idempotencyKey: null, fingerprint: null, actor: null, traceparent: null },
  };
}

it('quotes texts as PostgreSQL reads them, whatever is in them', () => {
  const text = fc.string({
    unit: fc.oneof(fc.string(), fc.constantFrom('"', '\\', '\n', '\u007f', '\u2028', 'é', '😀')),
  });
  fc.assert(
    fc.property(fc.array(text, { minLength: 1 }), (texts) => {
      const quoted = texts.map((one) => `"${one.replace(/["\\]/g, '\\$&')}"`);
      expect(parametersOf(texts.map(updateWith))[REFERENCES]).toBe(`{${quoted.join(',')}}`);
    }),
  );
});
