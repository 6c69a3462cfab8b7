// Proves the guarantees from what the clients saw, what the database holds, and what a subscriber received. Pure: the
// same evidence always gives the same violations.
import { checkAccounts } from './accounts.ts';
import { checkAskedFor } from './asked-for.ts';
import { checkChanges } from './changes.ts';
import { checkConditions } from './conditions.ts';
import { checkDeclines } from './declines.ts';
import { checkEffects } from './effects.ts';
import { checkEpochs } from './epochs.ts';
import { checkEvents } from './events.ts';
import { type CheckInput, casesOf, type Violation } from './evidence.ts';
import { checkHistories } from './histories.ts';
import { checkHoldAnswers } from './hold-answers.ts';
import { holdLivesOf } from './hold-lives.ts';
import { checkHoldRequests } from './hold-requests.ts';
import { checkHolds } from './holds.ts';
import { checkOrder } from './order.ts';
import { checkRecovery } from './recovery.ts';
import { checkReversals } from './reversals.ts';
import { checkTransfers } from './transfers.ts';

export function check(input: CheckInput): Violation[] {
  const cases = casesOf(input);
  const lives = holdLivesOf(input.final);
  return [
    ...input.history.unexpected.map(({ atMs, what }) => ({ check: 'answers', atMs, what })),
    ...input.evidence.broken.map((what) => ({ check: 'processes', what })),
    ...input.evidence.missed.map((what) => ({ check: 'missed', what })),
    ...checkEffects(input, cases),
    ...checkAskedFor(input, cases),
    ...checkConditions(input, cases),
    ...checkDeclines(input, cases, lives),
    ...checkTransfers(input, cases),
    ...checkHolds(input, lives),
    ...checkHoldRequests(input, cases, lives),
    ...checkHoldAnswers(input, cases, lives),
    ...checkReversals(input, cases),
    ...checkChanges(input, cases),
    ...checkAccounts(input, cases),
    ...checkEpochs(input, cases),
    ...checkOrder(input, cases),
    ...checkEvents(input, cases),
    ...checkHistories(input),
    ...checkRecovery(input),
  ];
}
