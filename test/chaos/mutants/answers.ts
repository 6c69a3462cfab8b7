// Mutants of keys and answers: what took effect once is answered as it was, and what is unknown is not called known.
import { APPLY, edit, type Mutant, QUIET } from './mutant.ts';

const SENDER = 'src/api/updates/batch-sender.ts';
const RESULTS = 'src/api/updates/results.ts';
const LANE_CUTS = ['api-database-cut-after-commit', 'api-database-cut-before-answer'];

const FOUND_ALONE =
  "found.account_id = p_accounts[1] AND found.key = p_keys[1] AND found.client = coalesce(p_actors[1], '')";
const FOUND_BY_KEY = 'found.account_id = sent.account_id AND found.key = sent.key AND found.client = sent.client';
/** So that a key that is written twice is not what stops them. */
const DOUBLE_KEYS = [
  edit(APPLY, 'WHERE rotation.only_row)\n        );', 'WHERE rotation.only_row)\n        ) ON CONFLICT DO NOTHING;'),
  edit(APPLY, 'is_new IS NOT FALSE\n      ) item;', 'is_new IS NOT FALSE\n      ) item\n      ON CONFLICT DO NOTHING;'),
];

export const ofAnswers: readonly Mutant[] = [
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
    name: 'unknown-called-unchanged',
    breaks: 'after a lost connection the answer says that nothing was changed',
    edits: [edit(SENDER, "!isSettling(job)),\n      'outcome_unknown',", "!isSettling(job)),\n      'unavailable',")],
    faults: LANE_CUTS,
    expected: ['never unsure'],
  },
  {
    name: 'sent-again-without-a-key',
    breaks: 'after a lost connection updates without a key are sent again',
    edits: [
      edit(
        SENDER,
        `    this.#results.giveAll(
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
        SENDER,
        'if (keyed.length === 0) return;\n',
        "if (keyed.length === 0) return;\n    if (keyed.length > 0) return this.#results.giveAll(keyed, 'unavailable');\n",
      ),
    ],
    faults: LANE_CUTS,
    expected: ['never unsure'],
  },
  {
    name: 'answers-swapped',
    breaks: 'the answers of a batch reach the wrong requests',
    edits: [edit(RESULTS, '= batch[index] as Job;', '= batch[batch.length - 1 - index] as Job;')],
    faults: QUIET,
    expected: ['once', 'never lost', 'gapless', 'answers'],
  },
];
