// The mutants: each breaks a guarantee in one place, and names the checks that have to notice. An edit whose text is not
// found exactly as often as it says is an error, so that no mutant quietly becomes the original. Two that only a race
// brings out sleep in the middle of it, so that a short run meets it.

export interface Edit {
  file: string;
  find: string;
  put: string;
  /** How often `find` stands there. */
  times?: number;
}

export interface Mutant {
  name: string;
  /** What it does wrong, in the words of the guarantee that it breaks. */
  breaks: string;
  edits: readonly Edit[];
  /** The faults that bring it out. */
  faults: readonly string[];
  /** Any of them will do: which one comes first is a matter of timing. */
  expected: readonly string[];
}

const APPLY = 'migrations/009.do.accounts-created-meanwhile.sql';
const LANE = 'src/api/updates/lane.ts';
const OUTBOX = 'src/api/relay/outbox.ts';
const PUMP = 'src/api/relay/pump.ts';
const DELIVERIES = 'src/worker/deliveries.ts';
const LEDGER = 'src/worker/ledger.ts';

/** Hardly disturbs anything; for mutants that traffic alone brings out. */
const QUIET = ['clock-step'];
const LANE_CUTS = ['api-database-cut-after-commit', 'api-database-cut-before-answer'];
const QUEUE_LOSS = ['queue-deleted', 'queue-purged'];

const edit = (file: string, find: string, put: string, times = 1): Edit => ({ file, find, put, times });

export const mutants: readonly Mutant[] = [
  {
    name: 'locks-unsorted',
    breaks: 'accounts of a batch are locked in the order of the updates',
    edits: [
      edit(
        APPLY,
        `SELECT array_agg(locked.account_id) INTO held_ids FROM (
    SELECT account_id FROM account WHERE account.account_id = ANY (p_account_ids) ORDER BY account.account_id FOR NO KEY UPDATE
  ) locked;`,
        `FOR item IN 1 .. cardinality(p_account_ids) LOOP
           PERFORM FROM account WHERE account.account_id = p_account_ids[item] FOR NO KEY UPDATE;
           PERFORM pg_sleep(0.002);
         END LOOP;
         held_ids := p_account_ids;`,
      ),
    ],
    faults: QUIET,
    expected: ['conserved'],
  },
  {
    name: 'no-lock',
    breaks: 'the balance is read without holding the account',
    edits: [
      edit(APPLY, ' ORDER BY account.account_id FOR NO KEY UPDATE\n  ) locked;', ') locked;'),
      edit(APPLY, 'WHERE account_id = p_account_ids[1] FOR NO KEY UPDATE;', 'WHERE account_id = p_account_ids[1];'),
    ],
    faults: QUIET,
    expected: ['conserved', 'gapless', 'answers'],
  },
  {
    name: 'key-not-looked-up',
    breaks: 'a key that was used is not looked up',
    edits: [
      edit(APPLY, 'request.account_id = input.account_id AND request.key = input.key LIMIT 1', 'false LIMIT 1'),
      edit(APPLY, 'WHERE account_id = p_account_ids[1] AND key = p_keys[1] LIMIT 1', 'WHERE false LIMIT 1'),
      edit(APPLY, 'WHERE key IS NOT NULL\n  )', 'WHERE key IS NOT NULL\n    ON CONFLICT DO NOTHING\n  )'),
      edit(
        APPLY,
        '(SELECT partition FROM request_rotation WHERE only_row));',
        '(SELECT partition FROM request_rotation WHERE only_row)) ON CONFLICT DO NOTHING;',
      ),
    ],
    faults: QUIET,
    expected: ['once'],
  },
  {
    name: 'key-looked-up-before-the-lock',
    breaks: 'two copies of one request at the same time both find its key unused',
    edits: [
      edit(
        APPLY,
        'SELECT * INTO held FROM account WHERE account_id = p_account_ids[1] FOR NO KEY UPDATE;\n    IF p_keys[1]',
        'IF p_keys[1]',
      ),
      edit(
        APPLY,
        'WHERE account_id = p_account_ids[1] AND key = p_keys[1] LIMIT 1;\n    END IF;',
        `WHERE account_id = p_account_ids[1] AND key = p_keys[1] LIMIT 1;
    END IF;
    PERFORM pg_sleep(0.01);
    SELECT * INTO held FROM account WHERE account_id = p_account_ids[1] FOR NO KEY UPDATE;`,
      ),
      edit(
        APPLY,
        '(SELECT partition FROM request_rotation WHERE only_row));',
        '(SELECT partition FROM request_rotation WHERE only_row)) ON CONFLICT DO NOTHING;',
      ),
    ],
    faults: QUIET,
    expected: ['once'],
  },
  {
    name: 'declines-not-remembered',
    breaks: 'a declined update is decided anew when it is repeated',
    edits: [
      edit(APPLY, 'WHERE key IS NOT NULL\n  )', "WHERE key IS NOT NULL AND outcome = 'applied'\n  )"),
      edit(
        APPLY,
        'IF p_keys[1] IS NOT NULL THEN\n        INSERT',
        "IF p_keys[1] IS NOT NULL AND outcome = 'applied' THEN\n        INSERT",
      ),
    ],
    faults: QUIET,
    expected: ['once'],
  },
  {
    name: 'fingerprint-ignored',
    breaks: 'another update under a used key gets the answer of the first',
    edits: [
      edit(
        APPLY,
        'CASE WHEN request.amount = input.amount AND request.reference IS NOT DISTINCT FROM input.reference',
        'CASE WHEN true',
      ),
      edit(
        APPLY,
        'IF known.amount = p_amounts[1] AND known.reference IS NOT DISTINCT FROM p_references[1] THEN',
        'IF true THEN',
      ),
    ],
    faults: QUIET,
    expected: ['once'],
  },
  {
    name: 'replay-not-marked',
    breaks: 'a repeated answer looks like a first one',
    edits: [edit(APPLY, 'SELECT item, known_outcome, true,', 'SELECT item, known_outcome, false,')],
    faults: QUIET,
    expected: ['once'],
  },
  {
    name: 'version-skips',
    breaks: 'each batch skips a version',
    edits: [edit(APPLY, 'opening_version + count(*) FILTER', 'opening_version + 1 + count(*) FILTER')],
    faults: QUIET,
    expected: ['conserved', 'gapless'],
  },
  {
    name: 'overdrawn-by-one',
    breaks: 'a debit may go one below the limit',
    edits: [
      edit(
        'migrations/003.do.apply-balance-updates.sql',
        'ELSIF amount >= -overdraft_limit - balance THEN',
        'ELSIF amount >= -overdraft_limit - balance - 1 THEN',
      ),
      edit(
        'migrations/001.do.tables.sql',
        'CHECK (balance >= -overdraft_limit)',
        'CHECK (balance >= -overdraft_limit - 1)',
      ),
    ],
    faults: QUIET,
    expected: ['never overdrawn'],
  },
  {
    name: 'frozen-ignored',
    breaks: 'a frozen account takes updates',
    edits: [
      edit(APPLY, "WHEN account.status = 'frozen' THEN 'account_frozen'", "WHEN false THEN 'account_frozen'"),
      edit(APPLY, "ELSIF held.status = 'frozen' THEN", 'ELSIF false THEN'),
    ],
    faults: QUIET,
    expected: ['answers'],
  },
  {
    name: 'time-runs-backwards',
    breaks: "an account's history follows the clocks of its callers",
    edits: [
      edit(APPLY, 'greatest(p_now, account.updated_at)', 'p_now'),
      edit(APPLY, 'greatest(p_now, held.updated_at)', 'p_now'),
    ],
    faults: ['clock-step'],
    expected: ['gapless'],
  },
  {
    name: 'balance-of-the-batch',
    breaks: 'an answer has the highest balance of its batch instead of its own',
    edits: [
      edit(
        APPLY,
        'SELECT item, outcome, false, balance_after, version_after, applied_at\n  FROM decided',
        'SELECT item, outcome, false, max(balance_after) OVER (PARTITION BY account_id), version_after, applied_at\n  FROM decided',
      ),
    ],
    faults: QUIET,
    expected: ['gapless', 'declines', 'once'],
  },
  {
    name: 'answers-swapped',
    breaks: 'the answers of a batch reach the wrong requests',
    edits: [edit(LANE, 'batch[item - 1]?.resolve(', 'batch[batch.length - item]?.resolve(')],
    faults: QUIET,
    expected: ['once', 'never lost', 'gapless', 'answers'],
  },
  {
    name: 'unknown-called-unchanged',
    breaks: 'after a lost connection the answer says that nothing was changed',
    edits: [edit(LANE, "=== null),\n      'outcome_unknown',", "=== null),\n      'unavailable',")],
    faults: LANE_CUTS,
    expected: ['never unsure'],
  },
  {
    name: 'sent-again-without-a-key',
    breaks: 'after a lost connection updates without a key are sent again',
    edits: [
      edit(
        LANE,
        `    answerAll(
      batch.filter((job) => job.update.idempotencyKey === null),
      'outcome_unknown',
    );
    const keyed = batch.filter((job) => job.update.idempotencyKey !== null);`,
        '    const keyed = batch;',
      ),
    ],
    faults: LANE_CUTS,
    expected: ['once'],
  },
  {
    name: 'keys-not-settled',
    breaks: 'after a lost connection even a keyed update is answered as unchanged',
    edits: [
      edit(
        LANE,
        'if (keyed.length === 0) return;\n',
        "if (keyed.length === 0) return;\n    if (keyed.length > 0) return answerAll(keyed, 'unavailable');\n",
      ),
    ],
    faults: LANE_CUTS,
    expected: ['never unsure'],
  },
  {
    name: 'confirm-is-enough',
    breaks: 'a confirmed event counts as recorded, whether the ledger has it or not',
    edits: [edit(OUTBOX, 'ledger.account_id IS NOT NULL AS recorded', 'true AS recorded')],
    faults: QUEUE_LOSS,
    expected: ['conserved', 'never lost', 'stuck'],
  },
  {
    name: 'truncated-unread',
    breaks: 'the outbox is truncated while changes in it are not in the ledger',
    edits: [
      edit(
        OUTBOX,
        `const needed = \`EXISTS (SELECT FROM \${table} WHERE position > \${upTo})\`;`,
        `const needed = \`(\${upTo} = -1 AND EXISTS (SELECT FROM \${table}))\`;`,
      ),
      edit(OUTBOX, 'const PARTITION_BYTES_MIN = 2 * 1024 * 1024;', 'const PARTITION_BYTES_MIN = 1;'),
    ],
    faults: QUIET,
    expected: ['conserved', 'never lost', 'stuck'],
  },
  {
    name: 'never-published-again',
    breaks: 'what the ledger lacks is not published again',
    edits: [edit(PUMP, 'lostPass = await findLost(nowMs);', 'lostPass = undefined;')],
    faults: QUEUE_LOSS,
    expected: ['stuck', 'never lost'],
  },
  {
    name: 'gaps-forgotten',
    breaks: 'a change that commits after a later position was read is passed over',
    edits: [
      edit('src/api/relay/outbox-cursor.ts', 'if (position > this.#behind + 1) {', 'if (position < this.#behind) {'),
    ],
    faults: QUIET,
    expected: ['stuck', 'never lost', 'conserved', 'events'],
  },
  {
    name: 'published-out-of-order',
    breaks: 'the events of a page are published last first',
    edits: [edit(PUMP, 'publishAll(page);', 'publishAll([...page].reverse());')],
    faults: QUIET,
    expected: ['events'],
  },
  {
    name: 'confirmed-early',
    breaks: 'an event counts as confirmed when it was sent',
    edits: [
      edit(
        'src/api/relay/publisher.ts',
        "done(returned.delete(id) ? 'unroutable' : error ? 'rejected' : 'confirmed');",
        "returned.delete(id);\n        done(error ? 'confirmed' : 'confirmed');",
      ),
    ],
    faults: ['subscriber-full'],
    expected: ['missed'],
  },
  {
    name: 'rejections-dropped',
    breaks: 'an event that one full queue refused is not tried again',
    edits: [edit(PUMP, 'else rejections.add(row, now());', 'else rejections.delete(row);')],
    faults: ['subscriber-full'],
    expected: ['missed'],
  },
  {
    name: 'acked-before-commit',
    breaks: 'messages are acknowledged before they are recorded',
    edits: [
      edit(
        'src/worker/consumer.ts',
        'const refused = await record(batch, options, signal, counts, spans);\n  if (refused) settle(channel, batch, refused);',
        'settle(channel, batch, new Set());\n  const refused = await record(batch, options, signal, counts, spans);',
      ),
    ],
    faults: ['worker-kill'],
    expected: ['forgeries'],
  },
  {
    name: 'refused-while-the-database-is-away',
    breaks: 'true events are dead-lettered while PostgreSQL does not answer',
    edits: [
      edit(
        DELIVERIES,
        'counts.retries += 1;\n',
        'counts.retries += 1;\n      return new Set(batch.map(({ message }) => message));\n',
      ),
    ],
    faults: ['database-stop', 'worker-database-cut-before-answer'],
    expected: ['events'],
  },
  {
    name: 'conflict-taken-for-a-duplicate',
    breaks: 'an event that contradicts its entry counts as a repeat of it',
    edits: [
      edit(
        LEDGER,
        `  WHERE ledger.amount = delivered.amount
    AND ledger.balance = delivered.balance
    AND ledger.reference IS NOT DISTINCT FROM delivered.reference
    AND ledger.actor IS NOT DISTINCT FROM delivered.actor
    AND ledger.created_at = delivered.created_at\`;`,
        '`;',
      ),
    ],
    faults: ['forged-events'],
    expected: ['forgeries'],
  },
  {
    name: 'forgeries-recorded',
    breaks: 'an event is recorded whether the outbox knows it or not',
    edits: [
      edit(
        LEDGER,
        `    CROSS JOIN LATERAL (
      SELECT * FROM outbox WHERE outbox.account_id = delivered.account_id AND outbox.version = delivered.version LIMIT 1
    ) outbox
    WHERE outbox.amount = delivered.amount
      AND outbox.balance = delivered.balance
      AND outbox.reference IS NOT DISTINCT FROM delivered.reference
      AND outbox.actor IS NOT DISTINCT FROM delivered.actor
      AND outbox.created_at = delivered.created_at
`,
        '',
      ),
    ],
    faults: ['forged-events'],
    expected: ['asked for', 'conserved'],
  },
  {
    name: 'rubbish-acknowledged',
    breaks: 'a message that is no event vanishes',
    edits: [edit(DELIVERIES, 'refused.add(message);\n    counts.malformed += 1;', 'counts.malformed += 1;')],
    faults: ['forged-events'],
    expected: ['forgeries'],
  },
];
