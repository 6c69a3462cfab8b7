// Mutants of what an account is: its locks, versions, limits, status, epoch and times.
import { APPLY, edit, type Mutant, QUIET, TABLES } from './mutant.ts';

const CHANGE = 'migrations/functions/change_account.sql';
const EPOCH = 'migrations/functions/current_epoch.sql';
const VERDICT = 'migrations/functions/money_verdict.sql';

export const ofAccounts: readonly Mutant[] = [
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
      edit(TABLES, 'CHECK (balance - held >= -overdraft_limit)', 'CHECK (balance - held >= -overdraft_limit - 1)'),
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
    name: 'expected-version-ignored',
    breaks: 'an update for another version of its account takes effect',
    edits: [edit(APPLY, 'IF v_versions[a] <> p_expected_versions[v_first] THEN', 'IF false THEN')],
    faults: QUIET,
    expected: ['conditions'],
  },
  {
    name: 'up-to-a-part',
    breaks: 'an update that takes what is there leaves some of it',
    edits: [
      edit(
        APPLY,
        'IF p_up_to[v_first] THEN v_amount := least(-1, greatest(v_amount, v_floors[a] - v_balances[a])); END IF;',
        'IF p_up_to[v_first] THEN v_amount := least(-1, greatest(v_amount, v_floors[a] - v_balances[a] + 1)); END IF;',
      ),
    ],
    faults: QUIET,
    expected: ['conditions'],
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
      edit(EPOCH, 'newest.timeline = substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)', 'true'),
      edit(EPOCH, 'newest.server_started_at = pg_postmaster_start_time()', 'true'),
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
];
