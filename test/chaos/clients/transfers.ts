// Transfers of two to five legs, some there and back at the same time, and reading what became of them. And updates that take
// effect all or none.
import { pickAccount, pickAmount, pickPeers } from '../accounts.ts';
import { signedBy } from '../attempts.ts';
import { type Attempt, type Leg, now } from '../history.ts';
import type { Random } from '../random.ts';
import type { Work } from './careful.ts';
import { type Client, operations } from './client.ts';

const AMOUNT_MAX = 30;
const READ_CHANCE = 0.1;

export function transfers(client: Client, make = operations(client)): Work {
  const { random } = client;
  return {
    next: () => make('transfer', pickLegs(random)),
    beside({ kind, legs }) {
      if (kind !== 'transfer' || !random.chance(0.2)) return [];
      return [
        make(
          'transfer',
          legs.map(({ accountId, amount }) => ({ accountId, amount: -(amount ?? 0) })),
        ),
      ];
    },
    async after(made) {
      if (random.chance(READ_CHANCE)) await readTransfer(client, made);
    },
  };
}

function pickLegs(random: Random): Leg[] {
  const accountIds = pickPeers(random, random.chance(0.6) ? 2 : random.between(3, 5));
  const amounts = accountIds.slice(1).map(() => random.between(1, AMOUNT_MAX) * (random.chance(0.5) ? 1 : -1));
  const sum = amounts.reduce((total, amount) => total + amount, 0);
  // The last one makes up for the others; where there is nothing to make up for, the first moves some more.
  if (sum === 0) amounts[0] = 2 * (amounts[0] as number);
  amounts.push(-amounts.reduce((total, amount) => total + amount, 0));
  return accountIds.map((accountId, place) => ({ accountId, amount: amounts[place] as number }));
}

/** As soon as it was answered, with all its legs, though the ledger may not have one of them yet. */
async function readTransfer(client: Client, { operation, result }: Attempt): Promise<void> {
  if (result.kind !== 'applied' || result.transferId === null) return;
  const { random, http, targets, history, actor } = client;
  const path = `/v1/transfers/${result.transferId}`;
  const reply = await http.send(random.pick(targets).port, 'GET', path, { headers: signedBy(client, actor) });
  if (reply.kind !== 'answer' || reply.status === 503) return;
  const { legs = [], createdAt, reference } = reply.body as { legs?: object[]; createdAt?: string; reference?: string };
  const answered = result.legs.toSorted((one, other) => (one.accountId < other.accountId ? -1 : 1));
  const shown = legs.map((leg) => ({ ...leg, eventId: undefined }));
  const isSame =
    JSON.stringify(shown) === JSON.stringify(answered.map((leg) => ({ ...leg, epoch: undefined }))) &&
    createdAt === result.createdAt &&
    reference === operation.id;
  if (isSame) return;
  const what = `reading the transfer ${result.transferId} of ${operation.id}: ${JSON.stringify(reply)}`;
  history.unexpected.push({ atMs: now(), what });
}

const ATOMIC_MAX = 8;

/** An account may be in it several times. */
export function atomicBulks(client: Client, make = operations(client)): Work {
  const { random } = client;
  return {
    next() {
      const accountIds = Array.from({ length: random.between(1, ATOMIC_MAX) }, () => pickAccount(random));
      if (random.chance(0.3)) accountIds.push(accountIds[0] as string);
      return make(
        'atomic',
        accountIds.map((accountId) => ({ accountId, amount: pickAmount(random, accountId) })),
      );
    },
  };
}
