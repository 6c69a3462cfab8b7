// The operator's commands about a database that lost commits, and what they say of histories made
// for it: every way in which a version that someone has seen can differ from the history here.
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findLostVersions } from '../../src/shared/cut-history.ts';
import { openClient } from '../../src/shared/database.ts';
import { findBrokenHeads } from '../../src/shared/kept-heads.ts';
import { startCommand } from '../support/commands.ts';
import {
  applyDirectly,
  cleanUp,
  createDatabase,
  createFolder,
  type Database,
  insertAccounts,
  insertChange,
  makeChange,
  recordDirectly,
} from '../support/harness.ts';

let database: Database;
let folder: string;

beforeAll(async () => {
  database = await createDatabase();
  folder = await createFolder();
  await database.pool.query('SELECT current_epoch()');
  // 100: before the cut. 300: after it. 200: of the history that is gone.
  await makeHistory('cut', [100, 100, 100, 300, 300], 4);
  await makeHistory('quiet', [100, 100]);
  await makeHistory('waiting', [100, 100, 100], 1);
});
afterAll(cleanUp);

/**
 * An account whose versions 0, 1, … have these epochs; those from `pending` on are in the outbox
 * alone.
 */
async function makeHistory(accountId: string, epochs: readonly number[], pending = epochs.length): Promise<void> {
  for (const [version, epoch] of epochs.entries()) {
    const change = makeChange({ accountId, version, epoch, previousEpoch: epochs[version - 1] ?? null });
    await insertChange(database, version < pending ? 'ledger' : 'outbox', change);
  }
  await database.pool.query(
    `INSERT INTO account (account_id, version, balance, epoch, created_at, updated_at) VALUES ($1, $2, $2, $3, now(), now())`,
    [accountId, epochs.length - 1, epochs.at(-1)],
  );
}

/** Of an account that makeHistory made, before the cut. */
const stateAt = (version: number) => ({
  version,
  epoch: version < 0 ? 0 : 100,
  balance: Math.max(0, version),
  held: 0,
});

async function newestEpoch(): Promise<number> {
  return (await database.pool.query('SELECT max(epoch) AS epoch FROM epoch')).rows[0].epoch;
}

const start = (...args: string[]) => startCommand(args, { DATABASE_URL: database.url });
const run = (...args: string[]) => start(...args).whenEnded;

async function fileWith(text: string): Promise<string> {
  const file = path.join(folder, 'versions.csv');
  await writeFile(file, text);
  return file;
}

describe('a version that someone has seen', () => {
  const none = { presentVersion: null, presentEpoch: null, sharedVersion: -1 };
  it.each([
    ['is of the present, in the ledger', 'cut', 3, 300, undefined],
    ['is of the present, in the outbox', 'cut', 4, 300, undefined],
    ['is merely older', 'cut', 1, 100, undefined],
    ['is the last that is shared', 'cut', 2, 100, undefined],
    ['is in the outbox alone', 'waiting', 2, 100, undefined],
    ['is another change now', 'cut', 3, 100, { presentVersion: 4, presentEpoch: 300, sharedVersion: 2 }],
    ['is of an epoch that was never here', 'cut', 4, 200, { presentVersion: 4, presentEpoch: 300, sharedVersion: 2 }],
    ['is above the account', 'cut', 9, 200, { presentVersion: 4, presentEpoch: null, sharedVersion: 2 }],
    [
      'is above an account without a later change',
      'quiet',
      3,
      100,
      { presentVersion: 1, presentEpoch: null, sharedVersion: 1 },
    ],
    ['is above all epochs here', 'quiet', 1, 900, { presentVersion: 1, presentEpoch: 100, sharedVersion: 0 }],
    ['is of no account', 'gone', 0, 100, none],
  ])('%s', async (_, accountId, version, epoch, expected) => {
    const client = await database.pool.connect();
    const lost = await findLostVersions(client, [{ accountId, version, epoch }]);
    client.release();
    const shared = expected && stateAt(expected.sharedVersion);
    expect(lost).toEqual(expected ? [{ accountId, version, epoch, ...expected, shared }] : []);
  });

  it('finds the last shared version of any history', async () => {
    let number = 0;
    const rises = fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(rises, fc.nat(12), fc.integer({ min: 0, max: 40 }), async (steps, pending, epoch) => {
        let last = 1;
        const epochs = steps.map((step) => (last += step));
        const accountId = `any-${number++}`;
        await makeHistory(accountId, epochs, pending);
        const { rows } = await database.pool.query('SELECT last_shared_version($1, $2) AS version', [accountId, epoch]);
        expect(rows[0].version).toBe(epochs.filter((one) => one <= epoch).length - 1);
      }),
      { numRuns: 60 },
    );
  });
});

describe('compare', () => {
  it('says what differs as text and as JSON lines, and takes a file or standard input', async () => {
    const text = 'accountId,version,epoch\r\ncut,3,100\r\n\r\ncut,2,100\r\ngone,0,100';
    const said = [
      'cut: version 3 of epoch 100; the same version is of epoch 300. The last that is shared is 2',
      'gone: version 0 of epoch 100; there is no such account',
      '2 of 3 differ',
    ];
    const file = await fileWith(text);
    expect(await run('compare', '--versions', file)).toEqual({ code: 1, out: `${said.join('\n')}\n`, err: '' });
    const piped = start('compare', '--versions', '-', '--json');
    piped.child.stdin.end(text);
    const { code, out } = await piped.whenEnded;
    expect(code).toBe(1);
    expect(
      out
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toEqual([
      {
        ...{ accountId: 'cut', version: 3, epoch: 100, presentVersion: 4, presentEpoch: 300, sharedVersion: 2 },
        shared: stateAt(2),
      },
      {
        ...{ accountId: 'gone', version: 0, epoch: 100, presentVersion: null, presentEpoch: null, sharedVersion: -1 },
        shared: stateAt(-1),
      },
      { compared: 3, differ: 2 },
    ]);
    expect(await run('compare', '--versions', await fileWith('quiet,1,100\n'))).toMatchObject({
      code: 0,
      out: '0 of 1 differ\n',
    });
  });

  it('says with --behind what a consumer lacks that should have everything', async () => {
    const { rows } = await database.pool.query('SELECT account_id AS id, version, epoch FROM account');
    const all = rows.map(({ id, version, epoch }) => `${id},${version},${epoch}\n`);
    const complete = `0 of ${rows.length} differ; behind: 0; accounts that are not listed: 0\n`;
    const file = await fileWith(all.join(''));
    expect(await run('compare', '--behind', '--versions', file)).toMatchObject({ code: 0, out: complete });

    const others = all.filter((line) => !/^(cut|quiet|waiting),/.test(line));
    await fileWith([...others, 'cut,3,100\n', 'quiet,0,100\n'].join(''));
    const said = [
      'cut: version 3 of epoch 100; the same version is of epoch 300. The last that is shared is 2',
      'quiet: version 0 is behind; the account is at version 1',
      `1 of ${rows.length - 1} differ; behind: 1; accounts that are not listed: 1`,
    ];
    expect(await run('compare', '--behind', '--versions', file)).toMatchObject({
      code: 1,
      out: `${said.join('\n')}\n`,
    });
    await fileWith([...all.filter((line) => !line.startsWith('quiet,')), 'quiet,0,100\n'].join(''));
    const { code, out } = await run('compare', '--behind', '--json', '--versions', file);
    expect(code).toBe(1);
    expect(
      out
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toEqual([
      { accountId: 'quiet', version: 0, epoch: 100, presentVersion: 1 },
      { compared: rows.length, differ: 0, behind: 1, unlisted: 0 },
    ]);
    await fileWith(others.join(''));
    expect(await run('compare', '--behind', '--versions', file)).toMatchObject({ code: 1 });
    expect(await run('compare', '--versions', file)).toMatchObject({ code: 0 });
  });

  it('takes an account that is listed twice for one', async () => {
    const { rows } = await database.pool.query('SELECT account_id AS id, version, epoch FROM account');
    const all = rows.map(({ id, version, epoch }) => `${id},${version},${epoch}\n`);
    const twice = [...all.filter((line) => !line.startsWith('quiet,')), all[0]];
    const file = await fileWith(twice.join(''));
    expect(await run('compare', '--behind', '--versions', file)).toMatchObject({
      code: 1,
      out: `0 of ${rows.length} differ; behind: 0; accounts that are not listed: 1\n`,
    });
    await fileWith([...all, all[0], 'quiet,9,100\n'].join(''));
    expect(await run('compare', '--behind', '--versions', file)).toMatchObject({ code: 1 });
    // More than are compared at a time, so that no statement sees both.
    await fileWith([...all, ...Array.from({ length: 2000 }, () => all[0])].join(''));
    expect(await run('compare', '--behind', '--versions', file)).toMatchObject({
      code: 1,
      err: expect.stringContaining('The list has accounts more than once'),
    });
  });

  it('warns where a consumer has an epoch above all of this history', async () => {
    const above = (await newestEpoch()) + 5;
    const { code, err } = await run('compare', '--versions', await fileWith(`quiet,1,${above}`));
    expect(code).toBe(1);
    expect(err).toContain(`The list has epoch ${above}`);
    expect(err).toContain('run highload-balance restored');
  });

  it.each([
    ['quiet,1', /line 1 does not have the form/],
    ['quiet,1,100\nquiet,1,0', /line 2 does not have the form/],
    ['quiet,-1,100', /line 1 does not have the form/],
    ['a b,1,100', /line 1 does not have the form/],
    ['quiet,1,100\naccountId,version,epoch', /line 2 does not have the form/],
    [`quiet,1,100\n${'x'.repeat(200_000)}`, /line 2 is longer than 10000 characters/],
  ])('refuses what is no list of versions: %.40s', async (text, message) => {
    const { code, err } = await run('compare', '--versions', await fileWith(text));
    expect({ code, err }).toEqual({ code: 1, err: expect.stringMatching(message) });
  });

  it('says how it is called', async () => {
    expect(await run('compare')).toMatchObject({ code: 2, err: expect.stringContaining('--versions FILE is missing') });
    expect(await run('compare', '--versions', path.join(folder, 'absent'))).toMatchObject({
      code: 1,
      err: expect.stringMatching(/absent cannot be read: ENOENT/),
    });
  });

  it('needs little memory for a list of any length', async () => {
    const { child, whenEnded } = start('compare', '--versions', '-');
    const block = Array.from({ length: 1000 }, () => 'quiet,1,100\n').join('');
    let peakBytes = 0;
    for (let count = 0; count < 200; count += 1) {
      if (!child.stdin.write(block)) await once(child.stdin, 'drain');
      peakBytes = Math.max(peakBytes, await residentBytes(child.pid as number));
    }
    child.stdin.end();
    expect(await whenEnded).toMatchObject({ code: 0, out: '0 of 200000 differ\n' });
    expect(peakBytes).toBeLessThan(200e6);
  });
});

async function residentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
}

describe('restored', () => {
  it('begins an epoch that changes carry from then on', async () => {
    await insertAccounts(database, 'after');
    const before = await newestEpoch();
    const { code, out } = await run('restored');
    const epoch = await newestEpoch();
    expect(epoch).toBeGreaterThan(before);
    expect({ code, out }).toEqual({
      code: 0,
      out: `The epoch was ${before}; it is now ${epoch}. If commits were lost: verify --heads FILE --cut-at ${epoch}\n`,
    });
    await applyDirectly(database.pool, 'after', 5);
    await applyDirectly(database.pool, 'after', 5);
    const { rows } = await database.pool.query(
      `SELECT version, epoch, previous_epoch AS previous FROM outbox WHERE account_id = 'after' ORDER BY version`,
    );
    expect(rows).toEqual([
      { version: 0, epoch: before, previous: null },
      { version: 1, epoch, previous: before },
      { version: 2, epoch, previous: epoch },
    ]);
    const again = JSON.parse((await run('restored', '--json')).out);
    expect(again).toEqual({ epoch: await newestEpoch(), previousEpoch: epoch });
  });

  it.each(['balance_api', 'balance_worker', 'balance_auditor'])('is refused to %s', async (role) => {
    const client = await openClient(database.url, 'test');
    await client.query(`SET ROLE ${role}`);
    await expect(client.query('SELECT raise_epoch()')).rejects.toMatchObject({ code: '42501' });
    await client.end();
  });
});

describe('kept heads of a history that was cut', () => {
  const EPOCH = 100;
  const CUT = 2000;

  /** Segments end after these versions. */
  async function hash(accountId: string, ...ends: number[]): Promise<void> {
    let before = -1;
    for (const last of ends) {
      await database.pool.query(`SELECT extend_ledger_chain(ARRAY[$1], $2)`, [accountId, last - before]);
      before = last;
    }
  }

  async function headAt(accountId: string, version: number) {
    const { rows } = await database.pool.query(
      `SELECT account_id AS "accountId", last_version AS version, epoch, encode(hash, 'hex') AS hash
       FROM ledger_chain JOIN ledger USING (account_id)
       WHERE account_id = $1 AND last_version = $2 AND ledger.version = last_version`,
      [accountId, version],
    );
    return rows[0];
  }

  async function rewind(accountId: string, statement: string): Promise<void> {
    const client = await openClient(database.url, 'test');
    for (const table of ['ledger', 'ledger_chain', 'epoch'])
      await client.query(`ALTER TABLE ${table} DISABLE TRIGGER ALL`);
    await client.query(statement.replaceAll('$1', `'${accountId}'`));
    for (const table of ['ledger', 'ledger_chain', 'epoch'])
      await client.query(`ALTER TABLE ${table} ENABLE TRIGGER ALL`);
    await client.end();
  }

  beforeAll(async () => {
    await database.pool.query(
      `INSERT INTO epoch (epoch, timeline, server_started_at, database_name, table_oid)
       SELECT made, 'x', now(), 'x', 0 FROM unnest(ARRAY[$1, $2]::bigint[]) AS made`,
      [EPOCH, CUT],
    );
  });

  const broken = async (...heads: object[]) => {
    const client = await database.pool.connect();
    const found = await findBrokenHeads(client, heads as never);
    client.release();
    return found;
  };

  it('hold where the entries are there and were hashed again with other boundaries', async () => {
    await makeHistory('rehashed', Array(10).fill(EPOCH));
    await hash('rehashed', 2, 6, 9);
    const heads = [await headAt('rehashed', 2), await headAt('rehashed', 6)];
    await rewind('rehashed', 'DELETE FROM ledger_chain WHERE account_id = $1 AND last_version > 2');
    await hash('rehashed', 4, 9);
    expect(await broken(...heads)).toEqual([]);
    await rewind('rehashed', `UPDATE ledger SET reference = 'x' WHERE account_id = $1 AND version = 5`);
    expect(await broken(...heads)).toMatchObject([{ version: 6, cutEpoch: undefined }]);
  });

  it('name the epoch that would explain them only above what is shared', async () => {
    await makeHistory('shortened', Array(10).fill(EPOCH));
    await hash('shortened', 3, 9);
    const heads = [await headAt('shortened', 3), await headAt('shortened', 9)];
    await rewind(
      'shortened',
      `DELETE FROM ledger_chain WHERE account_id = $1 AND last_version > 3; DELETE FROM ledger WHERE account_id = $1 AND version > 6;
       UPDATE account SET version = 6 WHERE account_id = $1`,
    );
    expect(await broken(...heads)).toMatchObject([
      { version: 9, cutEpoch: CUT, problem: expect.stringContaining(`--cut-at ${CUT}`) },
    ]);
    // Other changes have taken the versions since.
    for (const version of [7, 8, 9]) {
      const change = { accountId: 'shortened', version, epoch: CUT, previousEpoch: version === 7 ? EPOCH : CUT };
      await insertChange(database, 'outbox', makeChange(change));
      await recordDirectly(database, 'shortened', version, version);
    }
    await database.pool.query(`UPDATE account SET version = 9, epoch = ${CUT} WHERE account_id = 'shortened'`);
    await hash('shortened', 3, 9);
    expect(await broken(...heads)).toMatchObject([
      { version: 9, cutEpoch: CUT, problem: expect.stringMatching(/^the hash of version 9 is/) },
    ]);
    // An entry of the shared part was rewritten: no cut explains it.
    await rewind(
      'shortened',
      `DELETE FROM ledger_chain WHERE account_id = $1; UPDATE ledger SET reference = 'x' WHERE account_id = $1 AND version = 2`,
    );
    await hash('shortened', 3, 9);
    expect(await broken(...heads)).toMatchObject([
      { version: 3, cutEpoch: undefined },
      { version: 9, cutEpoch: CUT },
    ]);
  });
});
