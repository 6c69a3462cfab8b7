// The mutants: each breaks a guarantee in one place, and names the checks that have to notice. An edit whose text is not
// found exactly as often as it says is an error, so that no mutant quietly becomes the original. Those that only a race
// brings out sleep in the middle of it, so that a short run meets it.
import { ofAccounts } from './accounts.ts';
import { ofAnswers } from './answers.ts';
import { ofDelivery } from './delivery.ts';
import { ofHolds } from './holds.ts';
import type { Mutant } from './mutant.ts';
import { ofTransfers } from './transfers.ts';

export const mutants: readonly Mutant[] = [...ofAccounts, ...ofAnswers, ...ofTransfers, ...ofHolds, ...ofDelivery];
