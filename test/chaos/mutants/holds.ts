// Mutants of holds: what is held is not spent, is captured once and in time, and every end has its entry.
import { APPLY, edit, type Mutant, QUIET, TABLES } from './mutant.ts';

const EXPIRE = 'migrations/functions/expire_due_holds.sql';

export const ofHolds: readonly Mutant[] = [
  {
    name: 'hold-ignored',
    breaks: 'a debit spends what is held',
    edits: [
      edit(APPLY, 'account.held - account.overdraft_limit', '- account.overdraft_limit'),
      edit(APPLY, 'array_agg(l.held - l.overdraft_limit)', 'array_agg(- l.overdraft_limit)'),
      edit(TABLES, 'CHECK (balance - held >= -overdraft_limit)', 'CHECK (balance >= -overdraft_limit)'),
    ],
    faults: QUIET,
    expected: ['never overdrawn'],
  },
  {
    name: 'captured-twice',
    breaks: 'a hold stays as it is when it is captured, and is captured again',
    edits: [edit(APPLY, 'v_hold_is_changed[h] := true;', "v_hold_is_changed[h] := v_kind NOT LIKE 'capture%';")],
    faults: QUIET,
    expected: ['holds'],
  },
  {
    name: 'captured-after-expiry',
    breaks: 'a hold that is due can be used until something sweeps it',
    edits: [
      edit(
        APPLY,
        'EXIT WHEN v_is_expired OR NOT v_are_holding;',
        'EXIT WHEN v_is_expired OR NOT v_are_holding OR true;',
      ),
      edit(
        APPLY,
        "CASE WHEN r.status = 'active' AND r.expires_at <= v_now THEN 'expired' ELSE r.status END",
        'r.status',
      ),
    ],
    faults: QUIET,
    expected: ['holds'],
  },
  {
    name: 'expiry-without-an-entry',
    breaks: 'what expires is free again, without a version, an event and an entry',
    edits: [
      edit(
        EXPIRE,
        '    ORDER BY due.account_id, due.place\n',
        '    WHERE false\n    ORDER BY due.account_id, due.place\n',
      ),
      edit(EXPIRE, 'version = account.version + total.holds', 'version = account.version'),
    ],
    faults: QUIET,
    expected: ['holds', 'conserved'],
  },
  {
    name: 'never-swept',
    breaks: 'a hold of an account that nobody changes stays when it is due',
    edits: [edit('src/api/updates/hold-sweep.ts', '  plan();\n  return async', '  return async')],
    faults: QUIET,
    expected: ['holds'],
  },
  {
    name: 'refused-capture-takes-the-hold',
    breaks: 'the receiver refuses what is captured, and the hold is gone',
    edits: [
      edit(
        APPLY,
        'IF v_verdict IS NOT NULL THEN v_failed := v_last; END IF;\n',
        `IF v_verdict IS NOT NULL THEN
            v_failed := v_last;
            v_hold_statuses[h] := 'released';
            v_hold_remaining[h] := 0;
            v_hold_is_changed[h] := true;
            v_is_changed := true;
          END IF;
`,
      ),
    ],
    faults: QUIET,
    expected: ['holds'],
  },
  {
    name: 'rest-of-a-final-capture-held',
    breaks: 'a final capture does not release what is left',
    edits: [edit(APPLY, "CASE v_kind WHEN 'capture_final' THEN -v_rest ELSE -v_amount END", '-v_amount')],
    faults: QUIET,
    expected: ['holds'],
  },
  {
    name: 'captured-beyond-the-hold',
    breaks: 'more can be captured than was held',
    edits: [
      edit(APPLY, "v_amount > v_rest AND v_kind <> 'hold_change'", "v_amount > v_rest AND v_kind = 'release'"),
      edit(
        APPLY,
        "CASE v_kind WHEN 'capture_final' THEN -v_rest ELSE -v_amount END",
        "CASE v_kind WHEN 'capture_final' THEN -v_rest ELSE -least(v_amount, v_rest) END",
      ),
      edit(TABLES, 'captured BETWEEN 0 AND amount', 'captured >= 0'),
      edit(TABLES, 'remaining BETWEEN 0 AND amount - captured', 'remaining >= 0'),
    ],
    faults: QUIET,
    expected: ['holds'],
  },
  {
    name: 'placed-twice',
    breaks: 'a retry sets the money aside again',
    edits: [
      edit(APPLY, 'IF v_hold_statuses[h] IS NOT NULL THEN\n', 'IF v_hold_statuses[h] IS NOT NULL AND false THEN\n'),
      edit(
        APPLY,
        '        WHERE h.item IS NOT NULL;\n',
        `        WHERE h.item IS NOT NULL
        ON CONFLICT (account_id, hold_id) DO UPDATE
        SET amount = hold.amount + excluded.amount, remaining = hold.remaining + excluded.remaining, status = 'active';
`,
      ),
    ],
    faults: QUIET,
    expected: ['once', 'holds'],
  },
  {
    name: 'hold-of-another-request',
    breaks: 'another request for a hold that exists is answered as if it had placed it',
    edits: [
      edit(
        APPLY,
        "v_hold_clients[h] = coalesce(p_actors[v_first], '') AND v_hold_fingerprints[h] = p_fingerprints[i]",
        'true',
      ),
    ],
    faults: QUIET,
    expected: ['once'],
  },
  {
    name: 'limit-below-what-is-held',
    breaks: 'an overdraft limit is lowered although holds rely on it',
    edits: [
      edit(
        'migrations/functions/change_account.sql',
        'account.balance - account.held < -v_overdraft_limit',
        'account.balance < -v_overdraft_limit',
      ),
      edit(TABLES, 'CHECK (balance - held >= -overdraft_limit)', 'CHECK (balance >= -overdraft_limit)'),
    ],
    faults: QUIET,
    expected: ['never overdrawn'],
  },
];
