// Guarantee 4 for transfers: all legs or none, with the sum 0, of one asset, by one client, under the id of the lowest debited
// leg. So what all accounts have together is what came in and went out otherwise.
import { eventIdOf } from '../answers.ts';
import type { Entry } from '../final-state.ts';
import type { Cases, CheckInput, Violation } from './evidence.ts';

export function checkTransfers({ final }: CheckInput, cases: Cases): Violation[] {
  const violations: Violation[] = [];
  const transfers = new Map<string, Entry[]>();
  let inAll = 0n;
  let otherwise = 0n;
  for (const entries of final.ledger.values()) {
    for (const entry of entries) {
      const { transferId, amount } = entry;
      if (transferId === null) otherwise += BigInt(amount);
      else transfers.set(transferId, [...(transfers.get(transferId) ?? []), entry]);
    }
  }
  for (const { balance } of final.accounts.values()) inAll += BigInt(balance);
  if (inAll !== otherwise) {
    const what = `all balances add up to ${inAll}; without transfers ${otherwise} came in and went out`;
    violations.push({ check: 'conserved', what });
  }
  for (const [transferId, legs] of transfers) {
    for (const what of wrongIn(transferId, legs, cases)) {
      violations.push({ check: 'transfers', accountId: (legs[0] as Entry).accountId, what: `${transferId} ${what}` });
    }
  }
  return violations;
}

function wrongIn(transferId: string, legs: readonly Entry[], cases: Cases): string[] {
  const wrong: string[] = [];
  const sum = legs.reduce((total, { amount }) => total + amount, 0);
  if (sum !== 0) wrong.push(`has legs that add up to ${sum}`);
  if (legs.length < 2) wrong.push('has a single leg');
  if (new Set(legs.map(({ accountId }) => accountId)).size < legs.length) wrong.push('names an account twice');
  for (const member of ['asset', 'reference', 'actor', 'metadata', 'reverses'] as const) {
    if (new Set(legs.map((leg) => leg[member])).size > 1) wrong.push(`has legs with another ${member} each`);
  }
  const [payer] = legs.filter(({ amount }) => amount < 0).sort((a, b) => (a.accountId < b.accountId ? -1 : 1));
  const id = payer && eventIdOf(payer.accountId, payer.version, payer.epoch);
  if (id !== transferId) wrong.push(`should be called ${id}, by its lowest debited leg`);
  const operation = cases.byId.get(legs[0]?.reference ?? '')?.operation;
  if (operation && (operation.kind === 'atomic' || operation.legs.length !== legs.length))
    wrong.push(`has ${legs.length} legs, and ${operation.legs.length} were asked for by ${operation.id}`);
  return wrong;
}
