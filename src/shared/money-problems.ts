// SQL for verify: finds problems in holds, transfers and reversals. Each is compared with the
// entries that made it, in ledger and outbox together. Legs in other accounts are found by index,
// so the cost depends only on the number of entries checked.
import { TRANSFER_LEGS_MAX } from './contract.ts';

/**
 * The columns of marked, and of what is read beside it, from a table or from marked itself. The
 * texts only of the entry that places a hold: whatever else is in marked would carry them for nothing.
 */
export const MARKED = `account_id, version, epoch, type, amount, held_change, transfer_id, reverses, hold_id, hold_status,
           hold_remaining, hold_expires_at, created_at, ${['reference', 'metadata', 'actor']
             .map((column) => `CASE WHEN type = 'hold.placed' THEN ${column} END AS ${column}`)
             .join(', ')}`;
const IS_MARKED = `(transfer_id IS NOT NULL OR reverses IS NOT NULL OR hold_id IS NOT NULL)`;

/**
 * The legs of a transfer, in any account. UNION, since a leg stays in the outbox for a while after
 * the ledger has it. The limit bounds what one lookup reads, even from a manipulated ledger.
 */
function legs(transferId: string): string {
  const part = (table: string) => `
        (SELECT account_id, version, amount, asset, reverses FROM ${table}
         WHERE transfer_id = ${transferId} LIMIT ${TRANSFER_LEGS_MAX + 1})`;
  return `(${part('whole_ledger')} UNION ${part('whole_outbox')})`;
}

/** A change by its id, in any account. */
function change(columns: string, condition: string): string {
  return `(
        SELECT ${columns} FROM whole_ledger WHERE ${condition}
        UNION ALL
        SELECT ${columns} FROM whole_outbox WHERE ${condition}
        LIMIT 1)`;
}

/** Minor units that a transfer moved in all. */
const moved = (transferId: string) =>
  `(SELECT coalesce(sum(leg.amount) FILTER (WHERE leg.amount > 0), 0) FROM ${legs(transferId)} leg)`;

// The account and version of an event id. For any other text they are null or match no change. A
// regular expression would cost ten times as much.
export const accountOf = (id: string) =>
  `left(${id}, -(length(split_part(${id}, ':', -1)) + length(split_part(${id}, ':', -2)) + 2))`;
export const versionOf = (id: string) =>
  `CASE WHEN split_part(${id}, ':', -2) ~ '^[0-9]{1,16}$' THEN split_part(${id}, ':', -2)::bigint END`;

/**
 * The rows of a source that have problems. Each problem is a condition and a sentence, with
 * arguments for %s.
 */
function findings(source: string, place: string, first: number, ...problems: [when: string, ...sentence: string[]][]) {
  const kinds = problems.map((_, index) => first + index).join(', ');
  const texts = problems.map(([when, sentence, ...values]) => {
    return `CASE WHEN ${when} THEN format('${sentence}', ${values.join(', ')}) END`;
  });
  return `
    SELECT account_id, ${place}, unnest(ARRAY[${kinds}]) AS kind, unnest(ARRAY[
      ${texts.join(',\n      ')}
    ]) AS problem
    FROM ${source}
    WHERE ${problems.map(([when]) => `(${when})`).join(' OR ')}`;
}

/**
 * Sums over the legs of a transfer, as numbers in an array: count, sum, one asset, one reverses,
 * first payer.
 */
const SUMS = `ARRAY[
                count(*), sum(leg.amount), (min(leg.asset COLLATE "C") = max(leg.asset COLLATE "C"))::integer,
                (min(coalesce(leg.reverses, '')) = max(coalesce(leg.reverses, '')))::integer,
                (min(leg.account_id) FILTER (WHERE leg.amount < 0) IS NOT DISTINCT FROM marked.first_account)::integer
              ]`;

/**
 * A transfer of more than two legs is only reversed whole; one of two legs also in part. Numeric, here
 * and wherever a sign is left out: of the lowest bigint, which only a manipulated entry has, there is no opposite.
 */
const OPPOSITE = `
              SELECT count(*) = count(one.amount) AND count(*) = count(two.amount)
                     AND bool_and(sign(one.amount) = -sign(two.amount) AND abs(two.amount::numeric) <= abs(one.amount::numeric))
                     AND (count(*) = 2 OR bool_and(one.amount::numeric = -two.amount::numeric))
              FROM ${legs('marked.reverses')} one FULL JOIN ${legs('marked.transfer_id')} two USING (account_id)`;

/** Where what belongs to a hold, a transfer or a change is found, if not all of its entries are in marked. */
export interface MoneySources {
  /** Further table expressions, which may read marked; each ends with a comma. */
  expressions: string;
  /** All entries of the holds that are checked, with the columns of marked. */
  holdEntries: string;
  /** All entries that reverse what is checked to be reversed, with the columns of marked. */
  reversingEntries: string;
  /** A column of each leg in marked. */
  place: string;
  /** By it, by is_first and by first_legs: the one leg of a transfer at which its legs are added up. */
  isSummed: string;
}

/** For whole histories: everything is in marked. */
export const ALL_MARKED: MoneySources = {
  expressions: '',
  holdEntries: 'marked',
  reversingEntries: 'marked',
  place: 'NULL',
  isSummed: 'is_first',
};

/**
 * Common table expressions. Other queries use held (account_id, amount: what its active holds have
 * left) and money_problems (account_id, problems: one sentence for each kind of problem, naming the
 * first case). They read ledger, outbox, hold, active_hold and reversal of the accounts being
 * checked, and whole_ledger and whole_outbox.
 *
 * A transfer is checked with the account of its first leg, whose event id is the transfer id. Every
 * other leg is checked to have a first leg: its account and version are looked up for each leg, its
 * whole id once. A reversal of a transfer is itself a transfer and is checked the same way.
 */
export const moneyProblems = ({ expressions, holdEntries, reversingEntries, place, isSummed }: MoneySources) => `
  marked AS MATERIALIZED (
    SELECT ${MARKED} FROM ledger WHERE ${IS_MARKED}
    UNION ALL
    SELECT ${MARKED} FROM outbox
    WHERE ${IS_MARKED} AND NOT EXISTS (
      SELECT FROM ledger WHERE ledger.account_id = outbox.account_id AND ledger.version = outbox.version
    )
  ),
  ${expressions}
  held AS (
    SELECT account_id, sum(remaining) AS amount FROM active_hold GROUP BY account_id
  ),
  hold_entries AS (
    SELECT DISTINCT ON (account_id, hold_id)
           account_id, hold_id, version, hold_status, hold_remaining, hold_expires_at, created_at AS changed_at,
           min(created_at) FILTER (WHERE type = 'hold.placed') OVER of_hold AS placed_at,
           min(reference) OVER of_hold AS placed_reference, min(metadata) OVER of_hold AS placed_metadata,
           min(actor) OVER of_hold AS placed_by,
           sum(held_change) OVER of_hold AS total, -sum(amount) OVER of_hold AS taken,
           sum(held_change) FILTER (WHERE type IN ('hold.placed', 'hold.changed')) OVER of_hold AS set_aside
    FROM ${holdEntries} marked
    WHERE hold_id IS NOT NULL
    WINDOW of_hold AS (PARTITION BY account_id, hold_id)
    ORDER BY account_id, hold_id, version DESC
  ),
  holds AS (
    SELECT account_id, hold_id, hold.amount, hold.captured, hold.remaining, hold.status, hold.expires_at,
           hold.client, hold.reference, hold.metadata, hold.created_at, hold.updated_at,
           version, hold_status, hold_remaining, hold_expires_at, changed_at, total, taken, set_aside,
           placed_at, placed_reference, placed_metadata, placed_by,
           hold.status IS NOT NULL AND version IS NOT NULL AS is_both
    FROM hold FULL JOIN hold_entries USING (account_id, hold_id)
  ),
  transfers AS (
    SELECT account_id, version, transfer_id, reverses, is_first, first_legs,
           CASE WHEN ${isSummed} THEN (SELECT ${SUMS} FROM ${legs('marked.transfer_id')} leg) END AS sums,
           CASE WHEN ${isSummed} AND reverses IS NOT NULL THEN (${OPPOSITE}
           ) END AS is_opposite
    FROM (
      SELECT *, ${place} AS place,
             CASE WHEN is_first THEN NULL WHEN account_id = first_account AND version = first_version THEN 0 ELSE (
               SELECT count(*) FROM ${change(
                 'version',
                 'account_id = marked.first_account AND version = marked.first_version AND transfer_id = marked.transfer_id',
               )} first
             ) END AS first_legs
      FROM (
        SELECT *, CASE WHEN account_id = first_account AND version = first_version
                       THEN event_id(account_id, version, epoch) = transfer_id ELSE false END AS is_first
        FROM (
          SELECT *, ${accountOf('transfer_id')} AS first_account, ${versionOf('transfer_id')} AS first_version
          FROM marked WHERE transfer_id IS NOT NULL
          OFFSET 0
        ) marked
        OFFSET 0
      ) marked
      OFFSET 0
    ) marked
    OFFSET 0
  ),
  reversing AS (
    SELECT account_id, reverses, min(version) AS first_version, min(sign(amount)) AS sign, max(sign(amount)) AS other_sign,
           sum(CASE WHEN transfer_id IS NULL THEN abs(amount::numeric) ELSE ${moved('marked.transfer_id')} END) AS moved
    FROM ${reversingEntries} marked
    WHERE reverses IS NOT NULL AND (transfer_id IS NULL OR account_id = ${accountOf('reverses')})
    GROUP BY account_id, reverses
  ),
  reversals AS (
    SELECT account_id, reverses, coalesce(version, first_version) AS version, original, reversed, first_version,
           coalesce(reversing.moved, 0) AS moved, sign, other_sign,
           CASE WHEN version IS NOT NULL THEN (
             SELECT ARRAY[sign(amount), CASE WHEN transfer_id IS NULL THEN abs(amount::numeric) ELSE ${moved('noted.reverses')} END]
             FROM ${change(
               'amount, transfer_id',
               `account_id = noted.account_id AND version = noted.version AND epoch = noted.epoch
              AND amount <> 0 AND reverses IS NULL AND coalesce(transfer_id, noted.reverses) = noted.reverses`,
             )} change
           ) END AS change
    FROM (SELECT *, event_id(account_id, version, epoch) AS reverses FROM reversal OFFSET 0) noted
    FULL JOIN reversing USING (account_id, reverses)
    OFFSET 0
  ),
  findings AS (${findings(
    'holds',
    `version AS place, hold_id::text AS name`,
    1,
    ['version IS NULL', 'hold %s has no entries', 'hold_id'],
    ['status IS NULL', 'hold %s has entries but no row', 'hold_id'],
    [
      'is_both AND (status, remaining) IS DISTINCT FROM (hold_status, hold_remaining)',
      ...['hold %s is %s with %s left, but its last entry says %s with %s'],
      ...['hold_id', 'status', 'remaining', 'hold_status', 'hold_remaining'],
    ],
    [
      'is_both AND expires_at IS DISTINCT FROM hold_expires_at',
      ...['hold %s has another expiry than its last entry', 'hold_id'],
    ],
    [
      'is_both AND remaining <> total',
      ...['hold %s has %s left, but its entries add up to %s', 'hold_id', 'remaining', 'total'],
    ],
    [
      'is_both AND captured <> taken',
      ...['hold %s has %s captured, but its entries took %s', 'hold_id', 'captured', 'taken'],
    ],
    [
      'is_both AND amount IS DISTINCT FROM set_aside',
      ...['hold %s has the amount %s, but its entries set aside %s', 'hold_id', 'amount', 'coalesce(set_aside, 0)'],
    ],
    ['is_both AND placed_at IS NULL', 'hold %s has no entry that placed it', 'hold_id'],
    [
      'is_both AND created_at <> placed_at',
      ...['hold %s was placed at %s, but its first entry says %s', 'hold_id', 'created_at', 'placed_at'],
    ],
    [
      // Of another state than its last entry, which is named above, it also has another time.
      'is_both AND (status, remaining) = (hold_status, hold_remaining) AND updated_at <> changed_at',
      ...['hold %s was last changed at %s, but its last entry says %s', 'hold_id', 'updated_at', 'changed_at'],
    ],
    [
      'is_both AND placed_at IS NOT NULL AND reference IS DISTINCT FROM placed_reference',
      ...['hold %s has another reference than the entry that placed it', 'hold_id'],
    ],
    [
      'is_both AND placed_at IS NOT NULL AND metadata IS DISTINCT FROM placed_metadata',
      ...['hold %s has other metadata than the entry that placed it', 'hold_id'],
    ],
    [
      // Without authentication the entry has no actor, and the hold the empty name.
      `is_both AND placed_at IS NOT NULL AND client <> coalesce(placed_by, '')`,
      ...['hold %s is of another client than the entry that placed it', 'hold_id'],
    ],
  )}
    UNION ALL${findings(
      'transfers',
      `version, ''`,
      21,
      ['sums[1] = 1', 'transfer %s has a single leg', 'transfer_id'],
      [
        `sums[1] > ${TRANSFER_LEGS_MAX}`,
        ...['transfer %s has more than %s legs', 'transfer_id', `${TRANSFER_LEGS_MAX}`],
      ],
      ['sums[2] <> 0', 'the legs of transfer %s add up to %s', 'transfer_id', 'sums[2]'],
      ['sums[3] = 0', 'the legs of transfer %s have different assets', 'transfer_id'],
      ['sums[4] = 0', 'the legs of transfer %s reverse different transfers', 'transfer_id'],
      ['sums[5] = 0', 'transfer %s is not named by its lowest debited leg', 'transfer_id'],
      ['NOT is_opposite', 'transfer %s is not the opposite of %s, which it reverses', 'transfer_id', 'reverses'],
      [
        'first_legs = 0',
        ...['version %s belongs to transfer %s, which has no leg with that event id', 'version', 'transfer_id'],
      ],
    )}
    UNION ALL${findings(
      'reversals',
      `version, ''`,
      31,
      ['reversed IS NULL', 'version %s reverses %s, but no reversal is recorded for it', 'first_version', 'reverses'],
      [
        'reversed IS NOT NULL AND change IS NULL',
        ...['a reversal is recorded for version %s, which cannot be reversed', 'version'],
      ],
      [
        'original <> change[2]',
        ...[
          'the reversal of version %s records an original amount of %s, but the change moved %s',
          'version',
          'original',
          'change[2]',
        ],
      ],
      [
        'reversed <> moved',
        ...['version %s has %s recorded as reversed, but its reversals add up to %s', 'version', 'reversed', 'moved'],
      ],
      [
        'moved > change[2]',
        ...['version %s moved %s, but its reversals add up to %s', 'version', 'change[2]', 'moved'],
      ],
      [
        'sign <> -change[1] OR other_sign <> -change[1]',
        ...['a reversal of version %s has the same sign as the change', 'version'],
      ],
    )}
  ),
  money_problems AS (
    SELECT account_id,
           array_agg(problem || CASE WHEN number > 1 THEN format(' (and %s more)', number - 1) ELSE '' END ORDER BY kind) AS problems
    FROM (
      SELECT DISTINCT ON (account_id, kind) account_id, kind, problem, count(*) OVER (PARTITION BY account_id, kind) AS number
      FROM findings
      WHERE problem IS NOT NULL
      ORDER BY account_id, kind, place, name
    ) first
    GROUP BY account_id
  )`;
