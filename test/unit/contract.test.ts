// The plain types that the client is published with say the same as the schemas that check requests
// and events. The compiler compares them: a difference fails `tsc`, not the run.
import { expectTypeOf, it } from 'vitest';
import type { z } from 'zod';
import type { changeAccountBody, createAccountBody } from '../../src/api/calls/account-calls.ts';
import type * as answers from '../../src/api/calls/answers.ts';
import type { balanceUpdateBody, bulkBody } from '../../src/api/calls/balance-update-calls.ts';
import type { captureBody, holdBody, holdChangeBody, releaseBody } from '../../src/api/calls/hold-calls.ts';
import type { reversalBody } from '../../src/api/calls/reversal-calls.ts';
import type { bulkTransfersBody, transferBody } from '../../src/api/calls/transfer-calls.ts';
import type { chainHead } from '../../src/shared/chain-head.ts';
import type {
  Account,
  AccountChange,
  AccountsPage,
  AccountVerification,
  AppliedUpdate,
  BalanceEvent,
  BalanceUpdate,
  BulkTransfer,
  BulkUpdate,
  CaptureAnswer,
  ChainHead,
  ChainSegmentsPage,
  EntriesPage,
  Entry,
  Hold,
  HoldAnswer,
  HoldCapture,
  HoldChange,
  HoldRelease,
  HoldsPage,
  NewAccount,
  NewHold,
  NewReversal,
  NewTransfer,
  PastBalance,
  PastTransfer,
  Reversal,
  Transfer,
} from '../../src/shared/contract.ts';
import type { balanceEvent } from '../../src/shared/events.ts';

it('is what the schemas of the requests take', () => {
  expectTypeOf<z.input<typeof createAccountBody>>().toEqualTypeOf<NewAccount>();
  expectTypeOf<z.input<typeof changeAccountBody>>().toEqualTypeOf<AccountChange>();
  expectTypeOf<z.input<typeof balanceUpdateBody>>().toEqualTypeOf<BalanceUpdate>();
  expectTypeOf<z.input<typeof bulkBody>['updates'][number]>().toEqualTypeOf<BulkUpdate>();
  expectTypeOf<z.input<typeof transferBody>>().toEqualTypeOf<NewTransfer>();
  expectTypeOf<z.input<typeof bulkTransfersBody>['transfers'][number]>().toEqualTypeOf<BulkTransfer>();
  expectTypeOf<z.input<typeof reversalBody>>().toEqualTypeOf<NewReversal>();
  expectTypeOf<z.input<typeof holdBody>>().toEqualTypeOf<NewHold>();
  expectTypeOf<z.input<typeof captureBody>>().toEqualTypeOf<HoldCapture>();
  expectTypeOf<z.input<typeof releaseBody>>().toEqualTypeOf<HoldRelease>();
  expectTypeOf<z.input<typeof holdChangeBody>>().toEqualTypeOf<HoldChange>();
});

it('is what the reference says of answers', () => {
  expectTypeOf<z.infer<typeof answers.account>>().toEqualTypeOf<Account>();
  expectTypeOf<z.infer<typeof answers.accountsPage>>().toEqualTypeOf<AccountsPage>();
  expectTypeOf<z.infer<typeof answers.appliedUpdate>>().toEqualTypeOf<AppliedUpdate>();
  expectTypeOf<z.infer<typeof answers.transfer>>().toEqualTypeOf<Transfer>();
  expectTypeOf<z.infer<typeof answers.pastTransfer>>().toEqualTypeOf<PastTransfer>();
  expectTypeOf<z.infer<typeof answers.reversal>>().toEqualTypeOf<Reversal>();
  expectTypeOf<z.infer<typeof answers.hold>>().toEqualTypeOf<Hold>();
  expectTypeOf<z.infer<typeof answers.holdsPage>>().toEqualTypeOf<HoldsPage>();
  expectTypeOf<z.infer<typeof answers.holdAnswer>>().toEqualTypeOf<HoldAnswer>();
  expectTypeOf<z.infer<typeof answers.captureAnswer>>().toEqualTypeOf<CaptureAnswer>();
  expectTypeOf<z.infer<typeof answers.entry>>().toEqualTypeOf<Entry>();
  expectTypeOf<z.infer<typeof answers.entriesPage>>().toEqualTypeOf<EntriesPage>();
  expectTypeOf<z.infer<typeof answers.pastBalance>>().toEqualTypeOf<PastBalance>();
  expectTypeOf<z.infer<typeof answers.chainHead>>().toEqualTypeOf<ChainHead>();
  expectTypeOf<z.infer<typeof chainHead>>().toEqualTypeOf<ChainHead>();
  expectTypeOf<z.infer<typeof answers.chainSegmentsPage>>().toEqualTypeOf<ChainSegmentsPage>();
  expectTypeOf<z.infer<typeof answers.accountVerification>>().toEqualTypeOf<AccountVerification>();
});

it('is what the schema of the event makes', () => {
  expectTypeOf<z.infer<typeof balanceEvent>>().toEqualTypeOf<BalanceEvent>();
});
