// Clients that read, open, close and change accounts, and use them meanwhile.
import { changeAccount, openAccount, readAccount, readPage, type WantedChange } from '../account-requests.ts';
import { POLICY_LIMITS, pickAccount, pickPeers, type WantedAccount } from '../accounts.ts';
import { attempt } from '../attempts.ts';
import type { Operation } from '../history.ts';
import { settleBulk } from './bulk.ts';
import { type Client, operations, PAUSE_MS, pause, retryPause, settle, settleAll, updates } from './client.ts';
import { placing, readHold } from './holds.ts';

/** The first one, and each third after it. */
const CLOSED_EVERY = 3;
const CLOSING_TRIES_MAX = 5;

export async function read(client: Client): Promise<void> {
  const { random, targets, actor, winding, holds } = client;
  while (!winding.aborted) {
    await readAccount(client, random.pick(targets), actor, pickAccount(random));
    if (holds.length > 0 && random.chance(0.5)) await readHold(client, random.pick(holds));
    if (random.chance(0.5)) await readPage(client, random.pick(targets), actor, pickAccount(random), random);
    await pause(client);
  }
}

/** Opens accounts, and updates each before, while and after it is opened, alone and in transfers; some are closed in the end. */
export async function openAccounts(client: Client): Promise<void> {
  const { name, random, winding, over, targets, actor } = client;
  const make = operations(client);
  const next = updates(client, make);
  const transfer = (accountId: string): Operation => {
    const amount = random.between(1, 20) * (random.chance(0.5) ? 1 : -1);
    const peer = pickPeers(random, 2).find((one) => one !== accountId) as string;
    return make('transfer', [
      { accountId, amount },
      { accountId: peer, amount: -amount },
    ]);
  };
  for (let number = 0; !winding.aborted; number += 1) {
    const accountId = `${name}-account-${number}`;
    const wanted: WantedAccount = {
      asset: random.pick(['UNIT', 'USD/2']),
      overdraftLimit: random.between(0, 100),
      maxBalance: random.chance(0.3) ? random.between(0, 60) : null,
    };
    const early = [next(accountId), transfer(accountId)];
    for (const one of early) await attempt(client, random.pick(targets), one);
    await readAccount(client, random.pick(targets), actor, accountId, true);
    const meanwhile = [...early, ...Array.from({ length: random.between(1, 3) }, () => next(accountId))];
    meanwhile.push(transfer(accountId));
    const isToClose = number % CLOSED_EVERY === 0;
    if (!isToClose) meanwhile.push(placing(make, random, { accountId, amount: random.between(1, 20) }));
    // With updates of other accounts, so that their batch may be waiting for a lock when the account appears.
    const inBulk = [next(), next(accountId), next(), next(accountId)];
    const settled = [
      settleAll(client, meanwhile),
      settleBulk(client, inBulk),
      settleBulk(client, [transfer(pickPeers(random, 1)[0] as string), transfer(accountId), transfer(accountId)]),
    ];
    const isOpen = await untilOpen(client, accountId, wanted);
    await Promise.all(settled);
    if (!isOpen) return;
    await settleAll(client, [next(accountId), transfer(accountId)]);
    if (isToClose) await close(client, accountId, wanted, next);
    if (over.aborted) return;
    await pause(client, 8 * PAUSE_MS);
  }
}

/** Through both API processes at once: one of them opens it. @returns whether it is known to be open. */
async function untilOpen(client: Client, accountId: string, wanted: WantedAccount): Promise<boolean> {
  const { random, over, targets, actor } = client;
  await pause(client);
  for (;;) {
    const requests = random.chance(0.3) ? targets : [random.pick(targets)];
    const opened = await Promise.all(requests.map((api) => openAccount(client, api, actor, accountId, wanted)));
    if (opened.some(Boolean)) return true;
    if (over.aborted) return false;
    await retryPause(client);
  }
}

/** Takes out what is in it, closes it, and updates it once more. Where a balance is left, the service refuses to close it. */
async function close(
  client: Client,
  accountId: string,
  { overdraftLimit, maxBalance }: WantedAccount,
  next: (accountId: string, amount?: number) => Operation,
): Promise<void> {
  const { history, random, targets, actor, over } = client;
  const closed: WantedChange = { status: 'closed', overdraftLimit, maxBalance };
  for (let tries = 0; tries < CLOSING_TRIES_MAX; tries += 1) {
    await readAccount(client, random.pick(targets), actor, accountId);
    const rest = history.readings.findLast((reading) => reading.accountId === accountId)?.state.balance ?? 0;
    if (rest !== 0) await settle(client, next(accountId, -rest));
    if (over.aborted) return;
    if ((await changeAccount(client, random.pick(targets), actor, accountId, closed)) === 'in force') break;
    await retryPause(client);
  }
  await settle(client, next(accountId));
}

/** Freezes, opens, raises and lowers, one change after the other, each retried until it is known to be in force. */
export async function changePolicies(client: Client, accountId: string): Promise<void> {
  const { random, winding, over, actor, targets } = client;
  let status: 'open' | 'frozen' = 'open';
  for (let number = 0; !winding.aborted || status === 'frozen'; number += 1) {
    status = status === 'open' && !winding.aborted && random.chance(0.5) ? 'frozen' : 'open';
    // The number makes it unlike every other change of the account, so that its entry is known by its limits.
    let change: WantedChange = {
      status,
      overdraftLimit: random.pick(POLICY_LIMITS.overdraftLimit) + (number % 20),
      maxBalance: random.pick(POLICY_LIMITS.maxBalance) + Math.floor(number / 20),
    };
    for (;;) {
      const outcome = await changeAccount(client, random.pick(targets), actor, accountId, change);
      if (outcome === 'in force' || over.aborted) break;
      if (outcome === 'try again') await retryPause(client);
      // What is owed and held may be as much as any limit before allowed, and a frozen account cannot earn: so higher than all.
      else change = { ...change, overdraftLimit: POLICY_LIMITS.overdraftLimit[1] + 20 + number };
    }
    if (over.aborted) return;
    await pause(client, 30 * PAUSE_MS);
  }
}
