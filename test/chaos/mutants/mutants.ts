// The mutants: each breaks a guarantee in one place, and names the checks that have to notice. An edit whose text is not
// found exactly as often as it says is an error, so that no mutant quietly becomes the original. Those that only a race
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

const APPLY = 'migrations/functions/apply_changes.sql';
const CHANGE = 'migrations/functions/change_account.sql';
const EPOCH = 'migrations/functions/current_epoch.sql';
const VERDICT = 'migrations/functions/money_verdict.sql';
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

const FOUND_ALONE =
  "found.account_id = p_accounts[1] AND found.key = p_keys[1] AND found.client = coalesce(p_actors[1], '')";
const FOUND_BY_KEY = 'found.account_id = sent.account_id AND found.key = sent.key AND found.client = sent.client';
/** So that a key that is written twice is not what stops them. */
const DOUBLE_KEYS = [
  edit(APPLY, 'WHERE rotation.only_row)\n        );', 'WHERE rotation.only_row)\n        ) ON CONFLICT DO NOTHING;'),
  edit(APPLY, 'is_new IS NOT FALSE\n      ) item;', 'is_new IS NOT FALSE\n      ) item\n      ON CONFLICT DO NOTHING;'),
];

export const mutants: readonly Mutant[] = [
  {
    name: 'locks-unsorted',
    breaks: 'accounts of a batch are locked in another order by each batch',
    edits: [
      edit(
        APPLY,
        '  -- 1. The locks,',
        `  FOR v_found IN SELECT id FROM unnest(p_accounts) AS id ORDER BY random() LOOP
    PERFORM FROM account WHERE account.account_id = v_found.id FOR NO KEY UPDATE;
    PERFORM pg_sleep(0.002);
  END LOOP;
  -- 1. The locks,`,
      ),
    ],
    faults: QUIET,
    expected: ['conserved'],
  },
  {
    name: 'no-lock',
    breaks: 'the balance is read without holding the account',
    edits: [
      edit(APPLY, ' ORDER BY account.account_id FOR NO KEY UPDATE\n', ' ORDER BY account.account_id\n'),
      edit(APPLY, 'IF cardinality(p_leg_accounts) = 1 AND', 'IF false AND'),
    ],
    faults: QUIET,
    expected: ['conserved', 'gapless', 'answers'],
  },
  {
    name: 'key-not-looked-up',
    breaks: 'a key that was used is not looked up',
    edits: [
      edit(APPLY, `WHERE ${FOUND_BY_KEY} LIMIT 1`, 'WHERE false LIMIT 1'),
      edit(APPLY, `WHERE ${FOUND_ALONE};`, 'WHERE false;'),
      ...DOUBLE_KEYS,
    ],
    faults: QUIET,
    expected: ['once'],
  },
  {
    name: 'key-of-another-client',
    breaks: 'a key is looked up without the client that used it',
    edits: [
      edit(APPLY, " AND found.client = coalesce(p_actors[1], '')", ''),
      edit(APPLY, ' AND found.client = sent.client', ''),
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
        'SELECT true INTO v_is_locked FROM account WHERE account.account_id = p_accounts[1] FOR NO KEY UPDATE;',
        'v_is_locked := true;',
      ),
      edit(
        APPLY,
        '    UPDATE account\n    SET balance = account.balance +',
        '    IF p_keys[1] IS NOT NULL THEN PERFORM pg_sleep(0.01); END IF;\n    UPDATE account\n    SET balance = account.balance +',
      ),
      ...DOUBLE_KEYS,
    ],
    faults: QUIET,
    expected: ['once'],
  },
  {
    name: 'declines-not-remembered',
    breaks: 'a declined update is decided again when it is retried',
    edits: [
      edit(
        APPLY,
        '      IF p_keys[1] IS NOT NULL THEN\n        INSERT',
        '      IF p_keys[1] IS NOT NULL AND outcomes IS NULL THEN\n        INSERT',
      ),
      edit(
        APPLY,
        'WHERE one.key IS NOT NULL AND one.is_new IS NOT FALSE',
        'WHERE one.key IS NOT NULL AND one.is_new IS NOT FALSE AND one.outcome IS NULL',
      ),
    ],
    faults: QUIET,
    expected: ['once'],
  },
  {
    name: 'fingerprint-ignored',
    breaks: 'another update under a used key gets the answer of the first',
    edits: [
      edit(APPLY, 'v_found.fingerprint = p_fingerprints[1]', 'true'),
      edit(APPLY, 'array_agg(known.fingerprint = sent.fingerprint)', 'array_agg(true)'),
      edit(APPLY, 'IF p_fingerprints[v_twin] IS DISTINCT FROM p_fingerprints[i] THEN', 'IF false THEN'),
    ],
    faults: QUIET,
    expected: ['once'],
  },
  {
    name: 'replay-not-marked',
    breaks: 'a repeated answer looks like a first one',
    edits: [
      edit('src/api/updates/batch.ts', "const isReplayed = replayed?.[index] === 't';", 'const isReplayed = false;'),
    ],
    faults: QUIET,
    expected: ['once'],
  },
  {
    name: 'version-skips',
    breaks: 'a batch skips a version',
    edits: [
      edit(
        APPLY,
        'v_versions[a] := v_versions[a] + 1;',
        'v_versions[a] := v_versions[a] + CASE WHEN i = 2 THEN 2 ELSE 1 END;',
        2,
      ),
    ],
    faults: QUIET,
    expected: ['conserved', 'gapless'],
  },
  {
    name: 'overdrawn-by-one',
    breaks: 'a debit may go one below the limit',
    edits: [
      edit(VERDICT, 'WHEN amount >= floor - balance THEN NULL', 'WHEN amount >= floor - balance - 1 THEN NULL'),
      edit(
        'migrations/001.do.tables.sql',
        'CHECK (balance - held >= -overdraft_limit)',
        'CHECK (balance - held >= -overdraft_limit - 1)',
      ),
    ],
    faults: QUIET,
    expected: ['never overdrawn'],
  },
  {
    name: 'max-balance-ignored',
    breaks: 'a credit may leave more than the highest balance of the account',
    edits: [
      edit(APPLY, 'coalesce(account.max_balance, 9007199254740991)', '9007199254740991', 2),
      edit(APPLY, 'coalesce(l.max_balance, 9007199254740991)', '9007199254740991'),
    ],
    faults: QUIET,
    expected: ['never above'],
  },
  {
    name: 'frozen-ignored',
    breaks: 'a frozen account takes updates',
    edits: [
      edit(APPLY, "account.status = 'open' AND (v_is_locked", '(v_is_locked'),
      edit(APPLY, "account.status = 'open' AND account.held = 0", 'account.held = 0'),
      edit(APPLY, "bool_and(l.status = 'open')", 'true'),
      edit(APPLY, "nullif(v_statuses[p.place], 'open')", "nullif('open', 'open')"),
    ],
    faults: QUIET,
    expected: ['answers'],
  },
  {
    name: 'change-without-an-entry',
    breaks: 'limits and status change without a version, an event and an entry',
    edits: [
      edit(CHANGE, 'status = v_status, version = one.version + 1,', 'status = v_status,'),
      edit(CHANGE, '  INSERT INTO outbox (', '  IF false THEN INSERT INTO outbox ('),
      edit(
        CHANGE,
        'v_overdraft_limit, v_max_balance, v_status\n  );\n',
        'v_overdraft_limit, v_max_balance, v_status\n  ); END IF;\n',
      ),
    ],
    faults: QUIET,
    expected: ['conserved', 'never lost', 'order'],
  },
  {
    name: 'epoch-not-raised',
    breaks: 'after a start of the database changes carry the epoch from before it',
    edits: [
      edit(APPLY, 'newest.timeline = substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)', 'true', 2),
      edit(APPLY, 'newest.server_started_at = pg_postmaster_start_time()', 'true', 2),
      edit(EPOCH, 'newest.timeline = v_timeline AND newest.server_started_at = pg_postmaster_start_time()', 'true'),
    ],
    faults: ['database-stop'],
    expected: ['epochs'],
  },
  {
    name: 'epoch-not-stored',
    breaks: 'after a start of the database an account keeps its epoch, though its events carry the new one',
    edits: [edit(APPLY, 'epoch = coalesce(after.epoch, batch_epoch),', '')],
    faults: ['database-stop'],
    expected: ['epochs', 'conserved'],
  },
  {
    name: 'time-runs-backwards',
    breaks: 'a change has the time from before it waited for its account',
    edits: [
      edit(APPLY, '  -- 1. The locks,', '  PERFORM pg_sleep(random() * 0.01);\n  -- 1. The locks,'),
      edit(
        APPLY,
        "greatest(date_trunc('milliseconds', clock_timestamp()), account.updated_at)",
        "date_trunc('milliseconds', now())",
      ),
      edit(
        APPLY,
        "v_now := coalesce(v_now, date_trunc('milliseconds', clock_timestamp()));",
        "v_now := date_trunc('milliseconds', now());",
      ),
      edit(APPLY, 'greatest(o.at, v_now)', 'v_now'),
    ],
    faults: QUIET,
    expected: ['gapless'],
  },
  {
    name: 'balance-of-the-batch',
    breaks: 'an answer has the balance that its batch left instead of its own',
    edits: [
      edit(
        APPLY,
        '  -- 6. What changed,',
        `  FOR i IN 1..v_legs LOOP
    IF balances[i] IS NOT NULL THEN balances[i] := v_balances[p_leg_accounts[i]]; END IF;
  END LOOP;
  -- 6. What changed,`,
      ),
    ],
    faults: QUIET,
    expected: ['gapless', 'declines', 'once', 'conserved'],
  },
  {
    name: 'answers-swapped',
    breaks: 'the answers of a batch reach the wrong requests',
    edits: [edit(LANE, 'const job = batch[index] as Job;', 'const job = batch[batch.length - 1 - index] as Job;')],
    faults: QUIET,
    expected: ['once', 'never lost', 'gapless', 'answers'],
  },
  {
    name: 'unknown-called-unchanged',
    breaks: 'after a lost connection the answer says that nothing was changed',
    edits: [edit(LANE, "!isSettling(job)),\n      'outcome_unknown',", "!isSettling(job)),\n      'unavailable',")],
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
      batch.filter((job) => !isSettling(job)),
      'outcome_unknown',
    );
    const keyed = batch.filter(isSettling);`,
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
    edits: [edit(LEDGER, `\n  WHERE \${changeRow('ledger')} IS NOT DISTINCT FROM \${changeRow('delivered')}\`;`, '`;')],
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
    WHERE \${changeRow('outbox')} IS NOT DISTINCT FROM \${changeRow('delivered')}
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
