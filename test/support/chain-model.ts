// The hash chain again, by its description in docs/ledger-chain.md alone: from the entries and the
// segments that the API answers with.
import { createHash } from 'node:crypto';

export const GENESIS = '0'.repeat(64);

/** An entry as GET /v1/accounts/{id}/entries has it, as far as it is hashed. */
export interface HashedEntry {
  version: number;
  epoch: number;
  previousEpoch?: number;
  type: string;
  asset: string;
  amount: number;
  heldChange: number;
  balance: number;
  held: number;
  createdAt: string;
  reference?: string;
  actor?: string;
  metadata?: Record<string, string>;
  transferId?: string;
  reverses?: string;
  hold?: { id: string; status: string; remaining: number; expiresAt?: string };
  limits?: { overdraftLimit: number; status: string; maxBalance?: number };
}

/** As in GET /v1/accounts/{id}/chain-segments. */
export interface Segment {
  firstVersion: number;
  lastVersion: number;
  hash: string;
}

const json = JSON.stringify;

/** The members that the entry has, in the order given. */
function object(members: [name: string, text: string | undefined][]): string {
  const present = members.filter(([, text]) => text !== undefined);
  return `{${present.map(([name, text]) => `${json(name)}:${text}`).join(',')}}`;
}

const optional = (value: string | number | undefined) => (value === undefined ? undefined : json(value));

function metadataText(metadata: Record<string, string>): string {
  const byBytes = ([one]: [string, string], [other]: [string, string]) =>
    Buffer.compare(Buffer.from(one), Buffer.from(other));
  return object(
    Object.entries(metadata)
      .sort(byBytes)
      .map(([name, value]) => [name, json(value)]),
  );
}

/** Without the zone, and without zeros at the end of the fraction. */
function timeText(time: string): string {
  const [seconds = '', milliseconds = ''] = time.slice(0, -1).split('.');
  const fraction = milliseconds.replace(/0+$/, '');
  return fraction === '' ? seconds : `${seconds}.${fraction}`;
}

/** The twelve or thirteen elements of an entry, without their brackets. */
export function entryText(entry: HashedEntry): string {
  const { hold, limits, metadata } = entry;
  const rest = object([
    [
      'hold',
      hold &&
        object([
          ['expiresAt', hold.expiresAt === undefined ? undefined : json(timeText(hold.expiresAt))],
          ['id', json(hold.id)],
          ['remaining', json(hold.remaining)],
          ['status', json(hold.status)],
        ]),
    ],
    [
      'limits',
      limits &&
        object([
          ['maxBalance', optional(limits.maxBalance)],
          ['overdraftLimit', json(limits.overdraftLimit)],
          ['status', json(limits.status)],
        ]),
    ],
    ['metadata', metadata && json(metadataText(metadata))],
    ['reverses', optional(entry.reverses)],
    ['transferId', optional(entry.transferId)],
  ]);
  const elements = [
    ...[json(entry.version), json(entry.epoch), json(entry.previousEpoch ?? null), json(entry.type), json(entry.asset)],
    ...[
      json(entry.amount),
      json(entry.heldChange),
      json(entry.balance),
      json(entry.held),
      json(timeText(entry.createdAt)),
    ],
    ...[json(entry.reference ?? null), json(entry.actor ?? null)],
  ];
  return (rest === '{}' ? elements : [...elements, rest]).join(',');
}

export function segmentText(accountId: string, entries: readonly HashedEntry[]): string {
  return `[${[json(accountId), ...entries.map((entry) => `[${entryText(entry)}]`)].join(',')}]`;
}

/**
 * The hash of a segment of these entries, which are in order of version and follow the given hash.
 */
export function segmentHash(accountId: string, entries: readonly HashedEntry[], hashBefore = GENESIS): string {
  return createHash('sha256')
    .update(Buffer.from(hashBefore, 'hex'))
    .update(segmentText(accountId, entries), 'utf8')
    .digest('hex');
}

/**
 * The hash after the last segment, of entries in order of version and of the segments that they are in.
 * @throws where the segments do not follow each other from the first entry on, or are too long.
 */
export function recomputeHead(
  accountId: string,
  entries: readonly HashedEntry[],
  segments: readonly Pick<Segment, 'firstVersion' | 'lastVersion'>[],
  hashBefore = GENESIS,
): string {
  const start = entries[0]?.version ?? 0;
  let hash = hashBefore;
  let next = start;
  for (const { firstVersion, lastVersion } of segments) {
    if (firstVersion !== next || lastVersion < firstVersion || lastVersion - firstVersion >= 1000) {
      throw new Error(`a segment of versions ${firstVersion} to ${lastVersion} where ${next} is next`);
    }
    const members = entries.slice(firstVersion - start, lastVersion - start + 1);
    if (
      members.some(({ version }, index) => version !== firstVersion + index) ||
      members.length !== lastVersion - firstVersion + 1
    ) {
      throw new Error(`entries of versions ${firstVersion} to ${lastVersion} are missing`);
    }
    hash = segmentHash(accountId, members, hash);
    next = lastVersion + 1;
  }
  return hash;
}
