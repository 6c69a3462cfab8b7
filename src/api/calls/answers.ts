// The bodies of answers as schemas, for the calls to declare. test/unit/contract.test.ts holds them to the types of
// src/shared/contract.ts, and a contract test to what the API really answers.

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
  NO_CONTROLS,
  overdraftLimit,
  positiveAmount,
  reference,
  timestamp,
  version,
} from '../../shared/balance.ts';
import { BULK_UPDATES_MAX, CHANGE_TYPES, TRANSFER_LEGS_MAX } from '../../shared/contract.ts';
import { changeMembers } from '../../shared/events.ts';
import { type ProblemCode, problems } from '../../shared/problems.ts';
import { z } from '../../shared/zod.ts';
import { DETAIL_CHARACTERS_MAX, ERRORS_MAX, WHAT_CHARACTERS_MAX, WHERE_CHARACTERS_MAX } from '../http/problems.ts';
import { PAGE_ROWS_MAX } from './account-request.ts';
import { eventId as anyEventId, EXAMPLE_EPOCH, EXAMPLE_EVENT_ID } from './event-id.ts';

const balance = z.int().min(-AMOUNT_MAX).max(AMOUNT_MAX).meta({ description: 'Minor units.', example: 250 });
const held = balance.min(0).meta({ description: 'Minor units that active holds set aside.', example: 0 });
const lastVersion = version.meta({ description: 'Number of its last change; the opening is 0.', example: 1 });
const time = timestamp.meta({ description: 'UTC, in milliseconds.', example: '2026-11-23T20:24:34.540Z' });
const eventId = anyEventId.meta({
  description: '`<accountId>:<version>:<epoch in base 36>`, of event and entry.',
  example: EXAMPLE_EVENT_ID,
});
const CURSOR_CHARACTERS_MAX = 64;
const nextCursor = z
  .string()
  .max(CURSOR_CHARACTERS_MAX)
  .regex(/^[A-Za-z0-9._:-]+$/)
  .nullable()
  .meta({ description: 'Give it as `cursor` for the next page; null on the last one.', example: null });
/** One line for people. */
const line = (charactersMax: number) => z.string().max(charactersMax).meta({ pattern: NO_CONTROLS });
const page = <Row extends z.ZodType>(row: Row) => z.array(row).max(PAGE_ROWS_MAX);

export const account = z
  .strictObject({
    id: accountId.meta({ example: 'alice' }),
    asset: asset.meta({ description: 'The unit it counts, fixed at its opening.', example: 'USD/2' }),
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
  .strictObject({ accounts: page(account), nextCursor })
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
  transferId: anyEventId.meta({ description: '`eventId` of its lowest debited leg.', example: EXAMPLE_EVENT_ID }),
  legs: z.array(transferLeg).max(TRANSFER_LEGS_MAX).meta({ description: 'In order of account, by bytes.' }),
  createdAt: time.meta({ description: 'When it was accepted.' }),
};

export const transfer = z.strictObject(transferMembers).meta({ id: 'Transfer' });

export const pastTransfer = z
  .strictObject({
    ...transferMembers,
    reference: reference.optional(),
    metadata: metadata.optional(),
    actor: actor.optional().meta({ description: 'The client that sent it.' }),
    reverses: anyEventId.optional().meta({ description: 'Id of the transfer that it reverses.' }),
  })
  .meta({ id: 'PastTransfer' });

export const reversal = z
  .strictObject({
    reverses: anyEventId.meta({ description: 'The id that was sent as `of`.', example: EXAMPLE_EVENT_ID }),
    transferId: anyEventId
      .optional()
      .meta({ description: 'Present when a transfer was reversed: the reversal is a transfer too.' }),
    legs: transferMembers.legs,
    createdAt: transferMembers.createdAt,
  })
  .meta({ id: 'Reversal' });

export const hold = z
  .strictObject({
    accountId: accountId.meta({ example: 'alice' }),
    holdId: holdId.meta({ example: 'checkout-1001' }),
    status: z.enum(HOLD_STATUSES).meta({ example: 'active' }),
    amount: positiveAmount.meta({ description: 'Minor units it was placed with or changed to.', example: 100 }),
    captured: held.meta({ description: 'Minor units.', example: 0 }),
    remaining: held.meta({ description: 'What is still set aside.', example: 100 }),
    expiresAt: time.nullable().meta({ description: 'null: it does not expire.' }),
    createdAt: time,
    updatedAt: time,
  })
  .meta({ id: 'Hold' });

export const holdsPage = z
  .strictObject({ holds: page(hold), nextCursor })
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
    transferId: anyEventId.optional().meta({ description: 'Present with `to`: the capture is a transfer.' }),
    to: transferLeg.optional().meta({ description: 'The leg of the receiving account.' }),
  })
  .meta({ id: 'CaptureAnswer' });

const invalidInput = z.strictObject({
  where: line(WHERE_CHARACTERS_MAX).meta({
    description: 'JSON pointer into the body, or `body`, `header X`, `path X`, `query X`.',
    example: '/amount',
  }),
  what: line(WHAT_CHARACTERS_MAX).meta({ example: 'must not be 0' }),
});

const codes = Object.keys(problems) as [ProblemCode, ...ProblemCode[]];
const TITLE_CHARACTERS_MAX = 100;
const problemMembers = {
  type: z
    .string()
    .max(TITLE_CHARACTERS_MAX)
    .regex(/^urn:highload-balance:problem:[a-z_]+$/)
    .meta({ description: '`urn:highload-balance:problem:<code>`' }),
  title: line(TITLE_CHARACTERS_MAX),
  status: z.int().min(400).max(599),
  code: z.enum(codes).meta({ description: 'Stable: base decisions on it.' }),
  detail: line(DETAIL_CHARACTERS_MAX).optional().meta({ description: 'One sentence about this case, for people.' }),
  errors: z
    .array(invalidInput)
    .max(ERRORS_MAX)
    .optional()
    .meta({ description: 'With `invalid_request`: the first 20 mistakes.' }),
  accountId: accountId.optional(),
  balance: balance.optional(),
  version: lastVersion.optional(),
  hold: hold.optional().meta({ description: 'Its current state, when the refusal is about it.' }),
};

export const problem = z.strictObject(problemMembers).meta({
  id: 'Problem',
  description: 'RFC 9457 problem document, with the members `code` and, where known, the account.',
});

const refusedResult = z.strictObject({ ...problemMembers, replayed: z.boolean() }).meta({ id: 'RefusedResult' });

export const bulkAnswer = z
  .strictObject({
    results: z
      .array(
        z.union([
          appliedUpdate.extend({ status: z.literal(200), replayed: z.boolean() }).meta({ id: 'AppliedResult' }),
          refusedResult,
        ]),
      )
      .max(BULK_UPDATES_MAX),
  })
  .meta({ id: 'BulkAnswer', description: 'One result for each update, in order.' });

export const bulkTransfersAnswer = z
  .strictObject({
    results: z
      .array(
        z.union([
          transfer.extend({ status: z.literal(200), replayed: z.boolean() }).meta({ id: 'AppliedTransferResult' }),
          refusedResult,
        ]),
      )
      .max(BULK_UPDATES_MAX),
  })
  .meta({ id: 'BulkTransfersAnswer', description: 'One result for each transfer, in order.' });

export const entry = z
  .strictObject({
    eventId,
    type: z.enum(CHANGE_TYPES).meta({ description: 'Also the routing key of its event.', example: 'balance.credited' }),
    ...changeMembers,
    metadata: metadata.optional(),
    transferId: anyEventId.optional().meta({ description: 'Of a leg of a transfer.' }),
    reverses: anyEventId.optional().meta({ description: 'Of a reversal: what it reverses.' }),
    version: version.meta({ description: 'Number of this change within its account, without a gap.', example: 1 }),
    epoch: epoch.meta({
      description: 'Differs for the same version in another history of the account (after a restore).',
      example: EXAMPLE_EPOCH,
    }),
    previousEpoch: epoch
      .optional()
      .meta({ description: 'Of the version before; absent at 0.', example: EXAMPLE_EPOCH }),
    createdAt: time,
    recordedAt: time.meta({ description: 'When the entry was written to the ledger.' }),
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
      description:
        'The ledger has every version up to it; below `version` while entries are still being recorded, null while it lacks the first.',
    }),
    entries: page(entry),
    nextCursor,
  })
  .meta({
    id: 'EntriesPage',
    description:
      'Newest first, from `ledgerVersion` down without a gap. With filters, a page may hold few entries or none although more pages follow.',
  });

export const pastBalance = z
  .strictObject({
    accountId,
    version: lastVersion
      .nullable()
      .meta({ description: 'Of the last change up to that time; null before the opening.' }),
    balance,
    held,
    createdAt: time.nullable(),
  })
  .meta({ id: 'PastBalance' });

const hash = z
  .string()
  .length(64)
  .regex(/^[0-9a-f]+$/)
  .meta({ description: 'SHA-256 over all entries up to this one.', example: '0'.repeat(64) });

export const chainHead = z
  .strictObject({
    accountId,
    version: lastVersion.nullable().meta({ description: 'Of the newest entry that was hashed; null while none was.' }),
    epoch: epoch.nullable().meta({ description: 'Of that entry; null while there is none.', example: EXAMPLE_EPOCH }),
    hash,
  })
  .meta({ id: 'ChainHead' });

export const chainSegmentsPage = z
  .strictObject({
    accountId,
    segments: page(
      z.strictObject({
        firstVersion: version.meta({ example: 0 }),
        lastVersion: version.meta({ example: 1 }),
        hash,
      }),
    ),
    nextCursor,
  })
  .meta({ id: 'ChainSegmentsPage', description: 'Oldest first, from version 0 without a gap.' });

/** A header. An id may be three times as long in a path. */
export const location = (description: string) =>
  z
    .string()
    .max(500)
    .regex(/^\/v1\/accounts\/[A-Za-z0-9._%-]+(\/holds\/[A-Za-z0-9._%-]+)?$/)
    .meta({ description });

const whole = z.int().min(0);
/** More than there are kinds of problems. */
export const VERIFICATION_PROBLEMS_MAX = 100;

export const accountVerification = z
  .strictObject({
    accountId,
    verified: z.boolean().meta({ description: 'Whether there are no problems.' }),
    problems: z
      .array(line(DETAIL_CHARACTERS_MAX))
      .max(VERIFICATION_PROBLEMS_MAX)
      .meta({ description: 'What is wrong, one sentence each.', example: [] }),
    version: lastVersion,
    ledgerEntries: whole.meta({ example: 1 }),
    pendingChanges: whole.meta({ description: 'Changes whose entry is not in the ledger yet.', example: 0 }),
    unchainedEntries: whole.meta({ description: 'Entries that have no hash yet.', example: 0 }),
  })
  .meta({ id: 'AccountVerification' });
