// The plain types that the client is published with say the same as the schemas that check requests and events. The
// compiler compares them: a difference fails `tsc`, not the run.
import { expectTypeOf, it } from 'vitest';
import type { z } from 'zod';
import type { changeAccountBody, createAccountBody } from '../../src/api/calls/account-calls.ts';
import type * as answers from '../../src/api/calls/answers.ts';
import type { balanceUpdateBody, bulkBody } from '../../src/api/calls/balance-update-calls.ts';
import type { ChainHead } from '../../src/shared/chain-head.ts';
import type {
  Account,
  AccountChange,
  AccountsPage,
  AppliedUpdate,
  BalanceEvent,
  BalanceUpdate,
  BulkUpdate,
  EntriesPage,
  Entry,
  NewAccount,
  PastBalance,
} from '../../src/shared/contract.ts';
import type { balanceEvent } from '../../src/shared/events.ts';
import type { AccountVerification } from '../../src/shared/verification.ts';

it('is what the schemas of the requests take', () => {
  expectTypeOf<z.input<typeof createAccountBody>>().toEqualTypeOf<NewAccount>();
  expectTypeOf<z.input<typeof changeAccountBody>>().toEqualTypeOf<AccountChange>();
  expectTypeOf<z.input<typeof balanceUpdateBody>>().toEqualTypeOf<BalanceUpdate>();
  expectTypeOf<z.input<typeof bulkBody>['updates'][number]>().toEqualTypeOf<BulkUpdate>();
});

it('is what the reference says of answers', () => {
  expectTypeOf<z.infer<typeof answers.account>>().toEqualTypeOf<Account>();
  expectTypeOf<z.infer<typeof answers.accountsPage>>().toEqualTypeOf<AccountsPage>();
  expectTypeOf<z.infer<typeof answers.appliedUpdate>>().toEqualTypeOf<AppliedUpdate>();
  expectTypeOf<z.infer<typeof answers.entry>>().toEqualTypeOf<Entry>();
  expectTypeOf<z.infer<typeof answers.entriesPage>>().toEqualTypeOf<EntriesPage>();
  expectTypeOf<z.infer<typeof answers.pastBalance>>().toEqualTypeOf<PastBalance>();
  expectTypeOf<z.infer<typeof answers.chainHead>>().toEqualTypeOf<ChainHead>();
  const { accountId, verified, ...counts } = {} as z.infer<typeof answers.accountVerification>;
  expectTypeOf({ accountId, verified }).toEqualTypeOf<{ accountId: string; verified: boolean }>();
  expectTypeOf(counts).toEqualTypeOf<AccountVerification>();
});

it('is what the schema of the event makes', () => {
  expectTypeOf<z.infer<typeof balanceEvent>>().toEqualTypeOf<BalanceEvent>();
});
