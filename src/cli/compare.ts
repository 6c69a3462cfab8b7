// highload-balance compare: finds what a consumer has seen that is not part of this database's
// history. Its --help is the reference.
import { once } from 'node:events';
import { accountId, epoch } from '../shared/balance.ts';
import { SettingsError } from '../shared/config.ts';
import {
  type AccountSet,
  accountsAmong,
  allAccounts,
  findLostVersions,
  findOlderVersions,
  type LostVersion,
  type OlderVersion,
  SEEN_PAGE_MAX,
  type SeenVersion,
} from '../shared/cut-history.ts';
import type { Client } from '../shared/database.ts';
import { z } from '../shared/zod.ts';
import { UsageError } from './arguments.ts';
import { INTERRUPTED, runCommand, withDatabase } from './command.ts';
import { commandLine } from './command-line.ts';
import { inPages, type Line, readLines, STDIN } from './lines.ts';
import { print, write } from './output.ts';
import { interruption, startProgress } from './progress.ts';

const HELP = `usage: highload-balance compare --versions FILE [--behind] [--json]

Compares the last change that a consumer handled for each account with ledger and outbox, and prints the accounts
whose last change is missing in this history: the version is above the account's, or is another change here. Use it
after a failover or a restore, when no later event reveals the difference. A consumer that merely lags does not
differ. Only reads; the file may have any size.

--versions   the consumer's list, - for standard input: one line for each account, with its id, and the version and
             the epoch of the last event, such as alice,7,1795464000000. A first line accountId,version,epoch is skipped
--behind     also prints accounts that have later changes than the list, and counts those that the list lacks: for a
             consumer that must have everything, because its queue is empty and nothing is sent
--json       JSON lines on standard output: each account that differs, with "shared", the last change that both histories
             have, as subscribe() stores it; and a line with the counts at the end

The database is the one at DATABASE_URL; the role balance_auditor is enough.

exit code: 0 nothing to report; 1 differences, or an unreadable line; 2 called incorrectly; 130 interrupted`;

const HEADER = 'accountId,version,epoch';
const LINE = /^([^,]*),(\d{1,16}),(\d{1,16})$/;
const seenVersion = z.strictObject({ accountId, version: z.int().min(0), epoch });

/** @throws SettingsError naming the line. */
async function* readVersions(path: string): AsyncGenerator<SeenVersion> {
  let isFirst = true;
  for await (const line of readLines(path)) {
    if (!(isFirst && line.text === HEADER)) yield parseVersion(line);
    isFirst = false;
  }
}

function parseVersion({ text, where }: Line): SeenVersion {
  const [, id, version, epoch] = LINE.exec(text) ?? [];
  const seen = seenVersion.safeParse({ accountId: id, version: Number(version), epoch: Number(epoch) });
  if (seen.success) return seen.data;
  throw new SettingsError(`${where} does not have the form accountId,version,epoch, such as alice,7,1795464000000`);
}

interface Compared {
  compared: number;
  differ: number;
  /** The highest epoch of those that differ. */
  highestEpoch: number;
  /** Listed accounts that exist here. */
  present: AccountSet;
  /** Those that have later changes; undefined unless asked for. */
  behind: number | undefined;
}

interface Wording {
  lost: (lost: LostVersion) => string;
  older: (older: OlderVersion) => string;
}

/** Prints differences at once, so that a long list is not kept. */
async function compare(client: Client, path: string, isComplete: boolean, say: Wording): Promise<Compared> {
  const behind = isComplete ? 0 : undefined;
  const done: Compared = { compared: 0, differ: 0, highestEpoch: 0, present: { count: 0, sum: 0n }, behind };
  const progress = startProgress(() => `${done.compared} versions compared, ${done.differ} differ`);
  try {
    for await (const seen of inPages(readVersions(path), SEEN_PAGE_MAX)) {
      const lost = await findLostVersions(client, seen);
      const differing = new Set(lost.map(({ accountId }) => accountId));
      const older = isComplete ? await findOlderVersions(client, seen) : [];
      const late = older.filter(({ accountId }) => !differing.has(accountId));
      done.compared += seen.length;
      done.differ += lost.length;
      for (const { epoch } of lost) done.highestEpoch = Math.max(done.highestEpoch, epoch);
      if (isComplete) {
        const { count, sum } = await accountsAmong(client, seen);
        done.present = { count: done.present.count + count, sum: done.present.sum + sum };
      }
      if (done.behind !== undefined) done.behind += late.length;
      const lines = [...lost.map(say.lost), ...late.map(say.older)].map((line) => `${line}\n`).join('');
      if (!write(lines)) await once(process.stdout, 'drain');
    }
    return done;
  } finally {
    progress.end();
  }
}

const AS_JSON: Wording = { lost: JSON.stringify, older: JSON.stringify };

const AS_TEXT: Wording = {
  lost: describe,
  older: ({ accountId, version, presentVersion }) =>
    `${accountId}: version ${version} is behind; the account is at version ${presentVersion}`,
};

function describe(lost: LostVersion): string {
  const { accountId, version, epoch, presentVersion, presentEpoch, sharedVersion } = lost;
  if (presentVersion === null) return `${accountId}: version ${version} of epoch ${epoch}; there is no such account`;
  const shared = sharedVersion < 0 ? 'No version is shared' : `The last that is shared is ${sharedVersion}`;
  const here =
    presentEpoch === null
      ? `the account is at version ${presentVersion}`
      : `the same version is of epoch ${presentEpoch}`;
  return `${accountId}: version ${version} of epoch ${epoch}; ${here}. ${shared}`;
}

/** Of this server, or the one that the service will raise when it starts. */
const PRESENT_EPOCH = `
  SELECT CASE
           WHEN server_started_at = pg_postmaster_start_time() AND database_name = current_database() AND table_oid = tableoid THEN epoch
           ELSE greatest(epoch + 1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
         END AS epoch
  FROM epoch ORDER BY epoch.epoch DESC LIMIT 1`;

/** Warns if subscribers cannot notice the cut: their epoch is above all epochs of this history. */
async function warnOfClock(client: Client, { highestEpoch }: Compared): Promise<void> {
  const { epoch = 0 } = (await client.query(PRESENT_EPOCH)).rows[0] ?? {};
  if (highestEpoch <= epoch) return;
  console.error(
    `The list has epoch ${highestEpoch}, above ${epoch}, the newest here: subscribers would not notice the cut. ` +
      'Correct the clock of this server, then run highload-balance restored.',
  );
}

/** Accounts here that the list lacks. @throws SettingsError if accounts are listed twice, which could hide as many. */
async function countUnlisted(client: Client, { present }: Compared): Promise<number> {
  const here = await allAccounts(client);
  const unlisted = here.count - present.count;
  if (unlisted > 0 || (unlisted === 0 && here.sum === present.sum)) return unlisted;
  throw new SettingsError('The list has accounts more than once: leave one line for each, with its last version.');
}

function describeCounts({ compared, differ, behind = 0 }: Compared, unlisted: number | undefined): string {
  const found = `${differ} of ${compared} differ`;
  return unlisted === undefined ? found : `${found}; behind: ${behind}; accounts that are not listed: ${unlisted}`;
}

await runCommand(async () => {
  const { versions, behind, json } = commandLine(
    { versions: { type: 'string' }, behind: { type: 'boolean' }, json: { type: 'boolean' } },
    HELP,
  );
  if (versions === undefined) throw new UsageError(`--versions FILE is missing, or --versions ${STDIN}`);
  interruption().addEventListener('abort', () => {
    console.error('Interrupted: the rest was not compared.');
    process.exit(INTERRUPTED);
  });
  await withDatabase('compare', async (client) => {
    const done = await compare(client, versions, behind ?? false, json ? AS_JSON : AS_TEXT);
    await warnOfClock(client, done);
    const unlisted = behind ? await countUnlisted(client, done) : undefined;
    const counts = { compared: done.compared, differ: done.differ, behind: done.behind, unlisted };
    print(json ? JSON.stringify(counts) : describeCounts(done, unlisted));
    if (done.differ + (done.behind ?? 0) + (unlisted ?? 0) > 0) process.exitCode = 1;
  });
});
