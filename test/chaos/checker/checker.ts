// Proves the guarantees from what the clients saw, what the database holds, and what a subscriber received. Pure: the
// same evidence always gives the same violations.
import { checkAccounts } from './accounts.ts';
import { checkChanges } from './changes.ts';
import { checkEffects } from './effects.ts';
import { checkEpochs } from './epochs.ts';
import { checkEvents } from './events.ts';
import { type CheckInput, casesOf, type Violation } from './evidence.ts';
import { checkOrder } from './order.ts';
import { checkRecovery } from './recovery.ts';

export function check(input: CheckInput): Violation[] {
  const cases = casesOf(input);
  return [
    ...input.history.unexpected.map(({ atMs, what }) => ({ check: 'answers', atMs, what })),
    ...input.evidence.broken.map((what) => ({ check: 'processes', what })),
    ...input.evidence.missed.map((what) => ({ check: 'missed', what })),
    ...checkEffects(input, cases),
    ...checkChanges(input, cases),
    ...checkAccounts(input, cases),
    ...checkEpochs(input, cases),
    ...checkOrder(input, cases),
    ...checkEvents(input, cases),
    ...checkRecovery(input),
  ];
}
