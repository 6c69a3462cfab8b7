// The hash chain once more, by its description in docs/ledger-chain.md alone: from the entries that the API answers with.
import { createHash } from 'node:crypto';

/** An entry as GET /v1/accounts/{id}/entries has it, as far as it is hashed. */
export interface HashedEntry {
  version: number;
  amount: number;
  balance: number;
  createdAt: string;
  reference?: string;
  actor?: string;
}

/** The hash behind the given entries, which are in order of version and follow the given hash. */
export function recomputeHead(accountId: string, entries: Iterable<HashedEntry>, hash = '00'.repeat(32)): string {
  let head = Buffer.from(hash, 'hex');
  for (const { actor, amount, balance, createdAt, reference, version } of entries) {
    const canonical = JSON.stringify({ accountId, actor, amount, balance, createdAt, reference, version });
    head = createHash('sha256').update(head).update(canonical, 'utf8').digest();
  }
  return head.toString('hex');
}
