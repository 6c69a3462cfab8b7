// Mutants of transfers, reversals and atomic bulks: all legs or none, once in whatever order, and never back more than it was.
import { APPLY, edit, type Mutant, QUIET } from './mutant.ts';

const REQUEST = 'src/api/calls/operation-request.ts';
const TRANSFERS = 'src/api/calls/transfer-calls.ts';
const REVERSALS = 'src/api/calls/reversal-calls.ts';

export const ofTransfers: readonly Mutant[] = [
  {
    name: 'half-a-transfer',
    breaks: 'the last leg of some transfers does not take effect',
    edits: [
      edit(
        APPLY,
        '            b := p_leg_accounts[l];\n            v_balances[b] := v_balances[b] + amounts[l];',
        `            b := p_leg_accounts[l];
            IF l = v_last AND v_versions[b] % 8 = 0 THEN
              IF v_is_applied IS NULL THEN v_is_applied := array_fill(true, ARRAY[v_legs]); END IF;
              v_is_applied[l] := false;
              balances[l] := v_balances[b];
              versions[l] := v_versions[b];
              CONTINUE;
            END IF;
            v_balances[b] := v_balances[b] + amounts[l];`,
      ),
    ],
    faults: QUIET,
    expected: ['whole', 'transfers'],
  },
  {
    name: 'transfer-named-by-another-leg',
    breaks: 'a transfer has the id of its highest leg',
    edits: [
      edit(
        'src/api/updates/batch.ts',
        'legs.findIndex(({ accountId }) => accountId === keyAccountId)',
        'legs.length - 1 + (keyAccountId ? 0 : 1)',
      ),
    ],
    faults: QUIET,
    expected: ['transfers'],
  },
  {
    name: 'assets-mixed',
    breaks: 'money goes between accounts that count different things',
    edits: [
      edit(APPLY, "WHEN v_assets[b] <> v_assets[a] THEN 'asset_mismatch'", "WHEN false THEN 'asset_mismatch'", 2),
    ],
    faults: QUIET,
    expected: ['transfers'],
  },
  {
    name: 'fingerprint-of-sent-legs',
    breaks: 'a retry with its legs in another order is taken for another request',
    edits: [edit(TRANSFERS, '{ legs: sorted, ...its }', '{ legs: given, ...its }')],
    faults: QUIET,
    expected: ['once'],
  },
  {
    name: 'key-of-the-first-leg',
    breaks: 'the key of a transfer belongs to the account that was sent first, so another order takes effect again',
    edits: [
      edit(TRANSFERS, 'given.toSorted((one, other) => (one.accountId < other.accountId ? -1 : 1))', 'given'),
      edit(REQUEST, 'if (legs.length === 1) return first.accountId;', 'if (legs.length > 0) return first.accountId;'),
    ],
    faults: QUIET,
    expected: ['once'],
  },
  {
    name: 'key-of-another-client-in-a-batch',
    breaks: 'of two clients with one key in one batch, the second gets the answer of the first',
    edits: [edit('src/api/updates/batch.ts', "actor ?? ''}", "actor ? '' : ''}")],
    faults: QUIET,
    expected: ['once'],
  },
  {
    name: 'transfer-key-of-another-client',
    breaks: 'the key of what is more than a lone update is looked up without the client that used it',
    edits: [edit(APPLY, ' AND found.client = sent.client', '')],
    faults: QUIET,
    expected: ['once'],
  },
  {
    name: 'reversed-twice',
    breaks: 'what came back of a change already is not looked up',
    edits: [edit(APPLY, 'coalesce(r.reversed, 0)', 'coalesce(r.reversed * 0, 0)')],
    faults: QUIET,
    expected: ['reversals'],
  },
  {
    name: 'anything-reversed',
    breaks: 'one leg of a transfer can be reversed by itself',
    edits: [
      edit(
        REVERSALS,
        'change.amount !== 0 && change.reverses === null && (change.transferId ?? id) === id',
        'change.amount !== 0',
      ),
    ],
    faults: QUIET,
    expected: ['reversals'],
  },
  {
    name: 'rest-is-all',
    breaks: 'a reversal of what is left takes as much as there was',
    edits: [
      edit(
        APPLY,
        "CASE v_kind WHEN 'reversal_rest' THEN v_rest ELSE",
        "CASE v_kind WHEN 'reversal_rest' THEN p_reversal_originals[h] ELSE",
      ),
      edit(
        APPLY,
        "ELSIF v_amount > v_rest THEN v_verdict := 'reversal_exceeds';",
        "ELSIF v_amount > v_rest AND v_kind = 'reversal' THEN v_verdict := 'reversal_exceeds';",
      ),
      edit(
        APPLY,
        'v_reversed[h] := v_reversed[h] + v_amount;',
        'v_reversed[h] := least(v_reversed[h] + v_amount, p_reversal_originals[h]);',
      ),
    ],
    faults: QUIET,
    expected: ['reversals'],
  },
  {
    name: 'atomic-in-part',
    breaks: 'the updates before the one that failed take effect',
    edits: [
      edit(APPLY, 'FOR l IN REVERSE v_failed - 1..v_first LOOP', 'FOR l IN REVERSE v_first - 1..v_first LOOP'),
      edit(
        APPLY,
        '        failed_legs[i] := v_failed;\n        FOR l IN v_first..v_last LOOP',
        `        failed_legs[i] := v_failed;
        IF v_kind = 'atomic' AND v_failed > v_first THEN v_is_changed := true; END IF;
        FOR l IN CASE v_kind WHEN 'atomic' THEN v_failed ELSE v_first END..v_last LOOP`,
      ),
    ],
    faults: QUIET,
    expected: ['once', 'whole'],
  },
];
