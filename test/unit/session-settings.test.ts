import { describe, expect, it } from 'vitest';
import { type FreshClient, prepareSession, type SessionUse, UnfitServer } from '../../src/shared/session-settings.ts';

const PID = 7;
const HEALTHY = {
  backendPid: PID,
  versionNumber: 180_004,
  version: '18.4',
  serverEncoding: 'UTF8',
  isInRecovery: false,
  isReadOnly: false,
  replicationRole: 'origin',
  fsync: true,
  fullPageWrites: true,
};

/** @param isLent there is no pooler, unless it is given. */
async function prepare(
  server: Partial<typeof HEALTHY>,
  use: SessionUse = {},
  isLent: () => Promise<boolean> = () => Promise.reject(new Error('nothing is in between')),
): Promise<number> {
  let statements = 0;
  const query = async () => {
    statements += 1;
    return { rows: [{ ...HEALTHY, ...server }] };
  };
  await prepareSession({ query, processID: PID } as unknown as FreshClient, use, undefined, isLent);
  return statements;
}

describe('a session', () => {
  it('is prepared by one statement', async () => {
    expect(await prepare({})).toBe(1);
    expect(await prepare({ replicationRole: 'local' })).toBe(1);
  });

  it('behind a pooler is prepared once it is known to last', async () => {
    expect(await prepare({ backendPid: 8 }, {}, async () => false)).toBe(2);
    await expect(prepare({ backendPid: 8 }, {}, async () => true)).rejects.toThrow(/^it is behind a pooler that gives/);
  });

  it.each<[Partial<typeof HEALTHY>, RegExp]>([
    [{ versionNumber: 140_019, version: '14.19' }, /PostgreSQL 14\.19: 15 or newer/],
    [{ serverEncoding: 'SQL_ASCII' }, /encoded in SQL_ASCII/],
    [{ replicationRole: 'replica' }, /session_replication_role is replica/],
    [{ isInRecovery: true, isReadOnly: true }, /^it is a standby, in recovery: name the primary$/],
    [{ isReadOnly: true }, /^default_transaction_read_only is on/],
  ])('is refused by %j', async (server, sentence) => {
    await expect(prepare(server)).rejects.toThrow(UnfitServer);
    await expect(prepare(server)).rejects.toThrow(sentence);
  });

  it('that only reads takes a standby', async () => {
    expect(await prepare({ isInRecovery: true, isReadOnly: true }, { access: 'any server' })).toBe(1);
  });

  it('reports what a power cut could destroy, once a process', async () => {
    const sentences: string[] = [];
    const warn = (sentence: string) => sentences.push(sentence);
    const risky = { fsync: false, fullPageWrites: false };
    await prepare(risky);
    for (let round = 0; round < 2; round += 1) await prepare(risky, { warn });
    expect(sentences).toEqual([expect.stringMatching(/fsync off/), expect.stringMatching(/full_page_writes off/)]);
  });
});
