// The bodies of answers as schemas, for the calls to declare. test/unit/contract.test.ts holds them to the types of
// src/shared/contract.ts, and a contract test to what the API really answers.
import { z } from 'zod';
import {
  AMOUNT_MAX,
  accountId,
  actor,
  amount,
  overdraftLimit,
  reference,
  timestamp,
  version,
} from '../../shared/balance.ts';
import { type ProblemCode, problems } from '../../shared/problems.ts';

const balance = z.int().min(-AMOUNT_MAX).max(AMOUNT_MAX).meta({ description: 'Minor units.', example: 250 });
const changes = z.int().min(0).meta({ description: 'Number of accepted changes.', example: 1 });
const time = timestamp.meta({ description: 'UTC, in milliseconds.', example: '2026-11-23T20:24:34.540Z' });
const eventId = z.string().meta({ description: '`<accountId>:<version>`, of event and entry.', example: 'alice:1' });
const nextCursor = z.string().nullable().meta({
  description: 'Give it as `cursor` for the next page; null on the last one.',
  example: null,
});

export const account = z
  .strictObject({
    id: accountId.meta({ example: 'alice' }),
    balance,
    version: changes,
    overdraftLimit: overdraftLimit.meta({ description: 'How far below 0 the balance may go.', example: 0 }),
    status: z.enum(['open', 'frozen']).meta({ description: 'A frozen account takes no updates.', example: 'open' }),
    createdAt: time,
    updatedAt: time.meta({ description: 'The last change of balance, limit or status.' }),
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
  version: changes.optional(),
};

export const problem = z.strictObject(problemMembers).meta({
  id: 'Problem',
  description: 'RFC 9457 problem document, with the members `code` and, where known, the account.',
});

export const bulkAnswer = z
  .strictObject({
    results: z.array(
      z.union([
        appliedUpdate.extend({ status: z.literal(200), replayed: z.boolean() }).meta({ id: 'AppliedResult' }),
        z.strictObject({ ...problemMembers, replayed: z.boolean() }).meta({ id: 'RefusedResult' }),
      ]),
    ),
  })
  .meta({ id: 'BulkAnswer', description: 'One result for each update, in order.' });

export const entry = z
  .strictObject({
    eventId,
    version,
    amount,
    balance: balance.meta({ description: 'What this change left.' }),
    createdAt: time,
    recordedAt: time.meta({ description: 'When the ledger took it.' }),
    reference: reference.optional().meta({ example: 'order 1001' }),
    actor: actor.optional().meta({ description: 'The client whose API key signed the request.', example: 'shop' }),
  })
  .meta({ id: 'Entry' });

export const entriesPage = z
  .strictObject({
    accountId,
    version: changes.meta({ description: 'Of the account.' }),
    ledgerVersion: changes.meta({ description: 'Of its newest entry; below `version` while events are under way.' }),
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
    version: changes.meta({ description: 'Of the last change up to then; 0 before the first one.' }),
    balance,
    createdAt: time.nullable(),
  })
  .meta({ id: 'PastBalance' });

export const chainHead = z
  .strictObject({
    accountId,
    version: changes.meta({ description: 'Of the newest entry that has its hash.' }),
    hash: z
      .string()
      .regex(/^[0-9a-f]{64}$/)
      .meta({ description: 'SHA-256 over all entries up to it.', example: '0'.repeat(64) }),
  })
  .meta({ id: 'ChainHead' });

const whole = z.int().min(0);

export const accountVerification = z
  .strictObject({
    accountId,
    verified: z.boolean().meta({ description: 'Whether there are no problems.' }),
    problems: z.array(z.string()).meta({ description: 'What does not hold, a sentence each.', example: [] }),
    version: changes,
    ledgerEntries: whole.meta({ example: 1 }),
    pendingChanges: whole.meta({ description: 'Changes whose entry is not in the ledger yet.', example: 0 }),
    unchainedEntries: whole.meta({ description: 'Entries that have no hash yet.', example: 0 }),
  })
  .meta({ id: 'AccountVerification' });
