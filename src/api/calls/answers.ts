// The bodies of answers as schemas, for the calls to declare. test/unit/contract.test.ts holds them to the types of
// src/shared/contract.ts, and a contract test to what the API really answers.
import { z } from 'zod';
import {
  AMOUNT_MAX,
  accountId,
  accountStatus,
  actor,
  amount,
  asset,
  epoch,
  HOLD_STATUSES,
  holdId,
  maxBalance,
  metadata,
  overdraftLimit,
  positiveAmount,
  reference,
  timestamp,
  version,
} from '../../shared/balance.ts';
import { eventId as eventIdOf } from '../../shared/change.ts';
import { CHANGE_TYPES } from '../../shared/contract.ts';
import { changeMembers } from '../../shared/events.ts';
import { type ProblemCode, problems } from '../../shared/problems.ts';

const balance = z.int().min(-AMOUNT_MAX).max(AMOUNT_MAX).meta({ description: 'Minor units.', example: 250 });
const held = balance.min(0).meta({ description: 'Minor units that active holds set aside.', example: 0 });
const lastVersion = version.meta({ description: 'Number of its last change; the opening is 0.', example: 1 });
const time = timestamp.meta({ description: 'UTC, in milliseconds.', example: '2026-11-23T20:24:34.540Z' });
/** When the database of the examples began to speak for itself. */
export const EXAMPLE_EPOCH = Date.parse('2026-11-23T20:00:00.000Z');
export const EXAMPLE_EVENT_ID = eventIdOf({ accountId: 'alice', version: 1, epoch: EXAMPLE_EPOCH });
const eventId = z.string().meta({
  description: '`<accountId>:<version>:<epoch in base 36>`, of event and entry.',
  example: EXAMPLE_EVENT_ID,
});
const nextCursor = z.string().nullable().meta({
  description: 'Give it as `cursor` for the next page; null on the last one.',
  example: null,
});

export const account = z
  .strictObject({
    id: accountId.meta({ example: 'alice' }),
    asset: asset.meta({ description: 'What it counts, fixed at its opening.', example: 'USD/2' }),
    balance,
    held,
    available: balance.meta({ description: '`balance + overdraftLimit - held`: what a debit or a hold can take.' }),
    version: lastVersion,
    overdraftLimit: overdraftLimit.meta({ description: 'How far below 0 the balance may go.', example: 0 }),
    maxBalance: maxBalance
      .nullable()
      .meta({ description: 'The highest balance that a credit may leave; null: no limit.', example: null }),
    status: accountStatus.meta({
      description: 'A frozen account takes no updates until it is open again; a closed one stays closed.',
      example: 'open',
    }),
    createdAt: time,
    updatedAt: time.meta({ description: 'The last change.' }),
  })
  .meta({ id: 'Account' });

export const accountsPage = z
  .strictObject({ accounts: z.array(account), nextCursor })
  .meta({ id: 'AccountsPage', description: 'In order of id, by bytes.' });

export const appliedUpdate = z
  .strictObject({
    accountId: accountId.meta({ example: 'alice' }),
    amount: amount.meta({ description: 'Minor units: a credit is positive, a debit negative.', example: 250 }),
    balance: balance.meta({ description: 'What this change left; others may have followed.' }),
    version: version.meta({ description: 'Number of this change within its account, without a gap.', example: 1 }),
    eventId,
    createdAt: time.meta({ description: 'When it was accepted.' }),
  })
  .meta({ id: 'AppliedUpdate' });

const transferLeg = z
  .strictObject({
    accountId: accountId.meta({ example: 'alice' }),
    amount: amount.meta({ description: 'Minor units: a credit is positive, a debit negative.', example: -250 }),
    balance: balance.meta({ description: 'What this leg left; other changes may have followed.' }),
    version: version.meta({ description: 'Number of this change within its account, without a gap.', example: 1 }),
    eventId,
  })
  .meta({ id: 'TransferLeg' });

const transferMembers = {
  transferId: z.string().meta({ description: '`eventId` of its lowest debited leg.', example: EXAMPLE_EVENT_ID }),
  legs: z.array(transferLeg).meta({ description: 'In order of account, by bytes.' }),
  createdAt: time.meta({ description: 'When it was accepted.' }),
};

export const transfer = z.strictObject(transferMembers).meta({ id: 'Transfer' });

export const pastTransfer = z
  .strictObject({
    ...transferMembers,
    reference: reference.optional(),
    metadata: metadata.optional(),
    actor: actor.optional().meta({ description: 'The client that sent it.' }),
    reverses: z.string().optional().meta({ description: 'Id of the transfer that it reverses.' }),
  })
  .meta({ id: 'PastTransfer' });

export const reversal = z
  .strictObject({
    reverses: z.string().meta({ description: 'What was reversed, as it was sent.', example: EXAMPLE_EVENT_ID }),
    transferId: z
      .string()
      .optional()
      .meta({ description: 'Where a transfer was reversed: the reversal is one as well.' }),
    legs: transferMembers.legs,
    createdAt: transferMembers.createdAt,
  })
  .meta({ id: 'Reversal' });

export const hold = z
  .strictObject({
    accountId: accountId.meta({ example: 'alice' }),
    holdId: holdId.meta({ example: 'checkout-1001' }),
    status: z.enum(HOLD_STATUSES).meta({ example: 'active' }),
    amount: positiveAmount.meta({ description: 'Minor units that it was placed with, or changed to.', example: 100 }),
    captured: held.meta({ description: 'Minor units.', example: 0 }),
    remaining: held.meta({ description: 'What is still set aside.', example: 100 }),
    expiresAt: time.nullable().meta({ description: 'null: it does not expire.' }),
    createdAt: time,
    updatedAt: time,
  })
  .meta({ id: 'Hold' });

export const holdsPage = z
  .strictObject({ holds: z.array(hold), nextCursor })
  .meta({ id: 'HoldsPage', description: 'In order of id, by bytes.' });

const changeOfHold = {
  ...appliedUpdate.shape,
  amount: balance.meta({ description: 'Minor units that left the account: 0 or below.', example: -100 }),
  hold,
};

export const holdAnswer = z.strictObject(changeOfHold).meta({ id: 'HoldAnswer' });

export const captureAnswer = z
  .strictObject({
    ...changeOfHold,
    transferId: z.string().optional().meta({ description: 'With `to`: it is a transfer.' }),
    to: transferLeg.optional().meta({ description: 'What the receiver got.' }),
  })
  .meta({ id: 'CaptureAnswer' });

const invalidInput = z.strictObject({
  where: z.string().meta({
    description: 'JSON pointer into the body, or `body`, `header X`, `path X`, `query X`.',
    example: '/amount',
  }),
  what: z.string().meta({ example: 'must not be 0' }),
});

const codes = Object.keys(problems) as [ProblemCode, ...ProblemCode[]];
const problemMembers = {
  type: z.string().meta({ description: '`urn:highload-balance:problem:<code>`' }),
  title: z.string(),
  status: z.int(),
  code: z.enum(codes).meta({ description: 'Stable: decide by it.' }),
  detail: z.string().optional().meta({ description: 'One sentence about this case, for people.' }),
  errors: z.array(invalidInput).optional().meta({ description: 'With `invalid_request`: the first 20 mistakes.' }),
  accountId: accountId.optional(),
  balance: balance.optional(),
  version: lastVersion.optional(),
  hold: hold.optional().meta({ description: 'As it is now, where the refusal is about it.' }),
};

export const problem = z.strictObject(problemMembers).meta({
  id: 'Problem',
  description: 'RFC 9457 problem document, with the members `code` and, where known, the account.',
});

const refusedResult = z.strictObject({ ...problemMembers, replayed: z.boolean() }).meta({ id: 'RefusedResult' });

export const bulkAnswer = z
  .strictObject({
    results: z.array(
      z.union([
        appliedUpdate.extend({ status: z.literal(200), replayed: z.boolean() }).meta({ id: 'AppliedResult' }),
        refusedResult,
      ]),
    ),
  })
  .meta({ id: 'BulkAnswer', description: 'One result for each update, in order.' });

export const bulkTransfersAnswer = z
  .strictObject({
    results: z.array(
      z.union([
        transfer.extend({ status: z.literal(200), replayed: z.boolean() }).meta({ id: 'AppliedTransferResult' }),
        refusedResult,
      ]),
    ),
  })
  .meta({ id: 'BulkTransfersAnswer', description: 'One result for each transfer, in order.' });

export const entry = z
  .strictObject({
    eventId,
    type: z.enum(CHANGE_TYPES).meta({ description: 'Also the routing key of its event.', example: 'balance.credited' }),
    ...changeMembers,
    version: version.meta({ description: 'Number of this change within its account, without a gap.', example: 1 }),
    epoch: epoch.meta({
      description: 'In another history of the account the same version has another.',
      example: EXAMPLE_EPOCH,
    }),
    previousEpoch: epoch
      .optional()
      .meta({ description: 'Of the version before; absent at 0.', example: EXAMPLE_EPOCH }),
    createdAt: time,
    recordedAt: time.meta({ description: 'When the ledger took it.' }),
  })
  .meta({
    id: 'Entry',
    description:
      'Amounts are minor units; balance, held and hold are as this change left them. What does not apply is absent.',
  });

export const entriesPage = z
  .strictObject({
    accountId,
    version: lastVersion.meta({ description: 'Of the account.' }),
    ledgerVersion: lastVersion.nullable().meta({
      description: 'Of its newest entry; below `version` while events are on their way, null while it has none.',
    }),
    entries: z.array(entry),
    nextCursor,
  })
  .meta({
    id: 'EntriesPage',
    description: 'Newest first. With filters a page may hold few or none, and others follow.',
  });

export const pastBalance = z
  .strictObject({
    accountId,
    version: lastVersion.nullable().meta({ description: 'Of the last change up to then; null before the opening.' }),
    balance,
    held,
    createdAt: time.nullable(),
  })
  .meta({ id: 'PastBalance' });

const hash = z
  .string()
  .regex(/^[0-9a-f]{64}$/)
  .meta({ description: 'SHA-256 over all entries up to this one.', example: '0'.repeat(64) });

export const chainHead = z
  .strictObject({
    accountId,
    version: lastVersion.nullable().meta({ description: 'Of the newest entry that was hashed; null while none was.' }),
    hash,
  })
  .meta({ id: 'ChainHead' });

export const chainSegmentsPage = z
  .strictObject({
    accountId,
    segments: z.array(
      z.strictObject({
        firstVersion: version.meta({ example: 0 }),
        lastVersion: version.meta({ example: 1 }),
        hash,
      }),
    ),
    nextCursor,
  })
  .meta({ id: 'ChainSegmentsPage', description: 'Oldest first, from version 0 without a gap.' });

const whole = z.int().min(0);

export const accountVerification = z
  .strictObject({
    accountId,
    verified: z.boolean().meta({ description: 'Whether there are no problems.' }),
    problems: z.array(z.string()).meta({ description: 'What does not hold, a sentence each.', example: [] }),
    version: lastVersion,
    ledgerEntries: whole.meta({ example: 1 }),
    pendingChanges: whole.meta({ description: 'Changes whose entry is not in the ledger yet.', example: 0 }),
    unchainedEntries: whole.meta({ description: 'Entries that have no hash yet.', example: 0 }),
  })
  .meta({ id: 'AccountVerification' });
