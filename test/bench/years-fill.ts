// Fills a database with the history of years, in SQL: accounts that take turns, each with an entry a round, and two busy
// ones with a twentieth of all entries each. Credits, debits, transfers, holds with their captures, references and metadata;
// every hash is there, so that verify accepts it. A segment is a single entry, as of an account that is quiet otherwise;
// those of the busy ones are long.
import { setTimeout as delay } from 'node:timers/promises';
import { GENESIS } from '../../src/shared/chain-problems.ts';
import { type Client, openClient } from '../../src/shared/database.ts';
import { whole } from './numbers.ts';

/** Entries of each quiet account, its opening left out. */
const ROUNDS = 100;
/** A whole pattern of entries (below): only after one are all holds captured. */
export const PATTERN = 10;
const BUSY = 2;
const BUSY_SHARE = 0.1;
const YEARS = 2;
const BEGAN_AT_S = Date.parse('2024-01-01T00:00:00Z') / 1000;
const YEAR_S = 365 * 86_400;
/** In one statement. */
const STEP_ACCOUNTS = 20_000;
const SEGMENT_ENTRIES = 1000;
const OVERDRAFT_LIMIT = 1_000_000;

export const quietId = (number: number) => `user:${String(number).padStart(7, '0')}`;
export const busyId = (number: number) => `busy:${number}`;

export interface History {
  /** All entries, openings included. */
  entries: number;
  quietAccounts: number;
  /** Versions of a quiet and of a busy account. */
  quietVersion: number;
  busyVersion: number;
}

const QUIET_ID = (number: string) => `'user:' || lpad((${number})::text, 7, '0')`;
const BUSY_ID = (number: string) => `'busy:' || (${number})::text`;

/**
 * Of the accounts `number` (an even one and the next are partners) the entries of `version`; $1 and
 * $2 are the epoch and its digits, $3 is the last version. The pattern of ten entries: credit, debit,
 * transfer, credit with metadata, hold, its capture, credit, transfer back, debit, and a credit
 * without any text. Together they add 9.
 */
const entries = (idOf: (number: string) => string, source: string) => `
  SELECT ${idOf('number')} AS account_id, version, $1::bigint AS epoch, CASE WHEN version > 0 THEN $1::bigint END AS previous_epoch,
         amount, CASE place WHEN 5 THEN 3 WHEN 6 THEN -3 ELSE 0 END AS held_change,
         9 * (version / ${PATTERN}) + (ARRAY[0, 10, 9, 9 + sign, 11 + sign, 11 + sign, 8 + sign, 9 + sign, 9, 8])[place + 1] AS balance,
         CASE place WHEN 5 THEN 3 ELSE 0 END AS held,
         to_timestamp(${BEGAN_AT_S} + ${YEARS * YEAR_S} * version::double precision / $3::bigint) AS created_at,
         CASE WHEN version = 0 THEN 'account.opened' WHEN place = 5 THEN 'hold.placed'
              WHEN amount > 0 THEN 'balance.credited' ELSE 'balance.debited' END AS type,
         'USD/2' AS asset,
         CASE WHEN place IN (1, 2, 7, 9) THEN 'order ' || number || '-' || version END AS reference, 'shop' AS actor,
         CASE WHEN place = 4 THEN '{"channel":"web"}' END AS metadata,
         CASE place WHEN 3 THEN ${idOf('number - number % 2')} WHEN 8 THEN ${idOf('number - number % 2 + 1')} END || ':' || version || ':' || $2
           AS transfer_id,
         CASE place WHEN 5 THEN 'hold-' || version WHEN 6 THEN 'hold-' || (version - 1) END AS hold_id,
         CASE place WHEN 5 THEN 'active' WHEN 6 THEN 'captured' END AS hold_status,
         CASE place WHEN 5 THEN 3 WHEN 6 THEN 0 END AS hold_remaining,
         CASE WHEN version = 0 THEN ${OVERDRAFT_LIMIT} END AS overdraft_limit, CASE WHEN version = 0 THEN 'open' END AS status
  FROM (
    SELECT *, CASE WHEN version = 0 THEN 0 ELSE (ARRAY[1, 10, -1, sign, 2, 0, -3, 1, -sign, -1])[place + 1] END AS amount
    FROM (
      SELECT number, version, (version % ${PATTERN})::integer AS place, (2 * (number % 2) - 1)::integer AS sign FROM ${source}
    ) placed
  ) entry`;

const COLUMNS = `account_id, version, epoch, previous_epoch, amount, held_change, balance, held, created_at, type, asset, reference, actor,
  metadata, transfer_id, hold_id, hold_status, hold_remaining, overdraft_limit, status`;

// $4 to $5: numbers of accounts. $6: their version.
const FILL_QUIET = `
  WITH inserted AS (
    INSERT INTO ledger (${COLUMNS})
    ${entries(QUIET_ID, '(SELECT number, $6::bigint AS version FROM generate_series($4::integer, $5::integer) AS number) turn')}
    RETURNING *
  )
  INSERT INTO ledger_chain (account_id, first_version, last_version, hash)
  SELECT account_id, version, version,
         ledger_segment_hash(coalesce(before.hash, ${GENESIS.hash}), account_id, ledger_entry_text(inserted))
  FROM inserted
  LEFT JOIN LATERAL (
    SELECT hash FROM ledger_chain chain WHERE chain.account_id = inserted.account_id AND chain.last_version = inserted.version - 1 LIMIT 1
  ) before ON true`;

// $4: number of the account. $5 to $6: versions.
const FILL_BUSY = `
  INSERT INTO ledger (${COLUMNS})
  ${entries(BUSY_ID, '(SELECT $4::integer AS number, version FROM generate_series($5::bigint, $6::bigint) AS version) turn')}`;

const OPEN = `
  INSERT INTO account (account_id, asset, balance, held, version, epoch, overdraft_limit, created_at, updated_at)
  SELECT opening.account_id, opening.asset, newest.balance, newest.held, newest.version, newest.epoch, opening.overdraft_limit,
         opening.created_at, newest.created_at
  FROM ledger opening
  CROSS JOIN LATERAL (
    SELECT * FROM ledger entry WHERE entry.account_id = opening.account_id ORDER BY entry.version DESC LIMIT 1
  ) newest
  WHERE opening.status IS NOT NULL`;

const HOLDS = `
  INSERT INTO hold (account_id, hold_id, amount, captured, remaining, status, client, fingerprint, created_at, updated_at)
  SELECT account_id, hold_id, 3, 3, 0, 'captured', 'shop', decode(repeat('00', 16), 'hex'), min(created_at), max(created_at)
  FROM ledger WHERE hold_id IS NOT NULL
  GROUP BY account_id, hold_id`;

/** Without waiting for the disk: what is measured later is on it. Autovacuum is what is measured too. */
const FILL_FAST = [
  'fsync = off',
  'full_page_writes = off',
  'synchronous_commit = off',
  `max_wal_size = '16GB'`,
  'autovacuum = off',
];

async function configure(client: Client, settings: readonly string[]): Promise<void> {
  for (const setting of settings) await client.query(`ALTER SYSTEM SET ${setting}`);
  await client.query('SELECT pg_reload_conf()');
  await delay(1000); // each session takes them over before its next statement
}

export async function afterFill(client: Client): Promise<void> {
  await client.query('CHECKPOINT');
  await client.query('ALTER SYSTEM RESET ALL');
  await client.query('SELECT pg_reload_conf()');
  await delay(1000);
}

/** How many accounts so many entries take: an even number. */
export function accountsFor(entries: number): number {
  return Math.max(2, 2 * Math.round((entries * (1 - BUSY_SHARE)) / ROUNDS / 2));
}

/**
 * The history of about so many entries. Ends after a whole pattern if the time is over before.
 * Settings of the server are changed meanwhile: {@link afterFill}.
 */
export async function fillYears(
  url: string,
  wanted: number,
  secondsMax: number,
  say: (line: string) => void,
): Promise<History> {
  const quietAccounts = accountsFor(wanted);
  const busyEntries = Math.max(1, Math.round((wanted * BUSY_SHARE) / BUSY / ROUNDS));
  const clients = await Promise.all(Array.from({ length: BUSY }, () => openClient(url, 'bench fill')));
  const [first] = clients as [Client, ...Client[]];
  await configure(first, FILL_FAST);
  const { epoch, digits } = (
    await first.query('SELECT current_epoch() AS epoch, epoch_digits(current_epoch()) AS digits')
  ).rows[0];
  const startedAtMs = performance.now();
  const seconds = () => (performance.now() - startedAtMs) / 1000;
  const each = Math.ceil(quietAccounts / BUSY / 2) * 2; // partners stay together

  /** Half of the quiet accounts, and one busy one. */
  async function fillRound(client: Client, lane: number, round: number): Promise<void> {
    const end = Math.min(quietAccounts, (lane + 1) * each);
    for (let number = lane * each; number < end; number += STEP_ACCOUNTS) {
      const last = Math.min(end, number + STEP_ACCOUNTS) - 1;
      await client.query(FILL_QUIET, [epoch, digits, ROUNDS, number, last, round]);
    }
    const [from, to] = round === 0 ? [0, 0] : [(round - 1) * busyEntries + 1, round * busyEntries];
    await client.query(FILL_BUSY, [epoch, digits, ROUNDS * busyEntries, lane, from, to]);
    for (let done = 0; done <= to - from; done += SEGMENT_ENTRIES)
      await client.query('SELECT extend_ledger_chain(ARRAY[$1], $2)', [busyId(lane), SEGMENT_ENTRIES]);
  }

  let round = 0;
  for (; round <= ROUNDS; round += 1) {
    await Promise.all(clients.map((client, lane) => fillRound(client, lane, round)));
    if (round % PATTERN !== 0 || round === 0) continue;
    say(`${whole(round * (quietAccounts + BUSY * busyEntries))} entries after ${whole(seconds())} s`);
    if (seconds() > secondsMax && round < ROUNDS) {
      say(`The time to fill is over: what is measured has fewer entries.`);
      break;
    }
  }
  const quietVersion = Math.min(round, ROUNDS);
  await first.query(OPEN);
  await first.query(HOLDS);
  await Promise.all(clients.map((client) => client.end()));
  const entries = quietAccounts * (quietVersion + 1) + BUSY * (quietVersion * busyEntries + 1);
  say(`${whole(entries)} entries of ${whole(quietAccounts + BUSY)} accounts are there after ${whole(seconds())} s`);
  return { entries, quietAccounts, quietVersion, busyVersion: quietVersion * busyEntries };
}

/** Only the openings of the same accounts. */
export async function fillOpenings(url: string, quietAccounts: number): Promise<void> {
  const client = await openClient(url, 'bench fill');
  const { epoch, digits } = (
    await client.query('SELECT current_epoch() AS epoch, epoch_digits(current_epoch()) AS digits')
  ).rows[0];
  for (let number = 0; number < quietAccounts; number += STEP_ACCOUNTS) {
    const last = Math.min(quietAccounts, number + STEP_ACCOUNTS) - 1;
    await client.query(FILL_QUIET, [epoch, digits, ROUNDS, number, last, 0]);
  }
  for (let number = 0; number < BUSY; number += 1) {
    await client.query(FILL_BUSY, [epoch, digits, ROUNDS, number, 0, 0]);
    await client.query('SELECT extend_ledger_chain(ARRAY[$1], $2)', [busyId(number), SEGMENT_ENTRIES]);
  }
  await client.query(OPEN);
  await client.end();
}
