// Moves money from an account of one cell to an account of another, which no transaction spans.
//
//   npm run example:transfer -- --order order-17 --from c1:alice --to c2:bob --amount 250
//
// It can be killed at any moment and run again with the same order, however often, however late and
// however concurrently: the money moves once, or not at all. docs/cells.md explains the steps.
import { type Account, BalanceError, type Client, createClient, type Hold } from 'highload-balance';
import { commandLine, refuse, wholeOption } from '../src/cli/command-line.ts';

const text = { type: 'string' } as const;
const given = commandLine(
  { order: text, from: text, to: text, amount: text },
  `usage: npm run example:transfer -- --order ORDER --from ACCOUNT --to ACCOUNT --amount AMOUNT

Moves money between accounts of two cells, once, however often it is killed and run again.

--order       your name for this transfer, in the form of a hold id. Never use it for another one
--from, --to  the accounts, such as c1:alice and c2:bob; the cell is what is before the first colon
--amount      whole minor units

BALANCE_URL says where the cells are. BALANCE_TOKEN_C1, BALANCE_TOKEN_C2 and so on are keys of the cells, with the scopes
read and write. Each cell needs a clearing account for each asset, such as c1:clearing.USD-2 for USD/2, with an overdraft
limit.

exit code: 0 the money moved; 1 not finished: run it again when the reason that it prints is gone; 2 called incorrectly;
3 the receiver refused the money, and the payer has it back`,
);

/** Nothing moved, and nothing is held. */
const REFUSED = 3;

interface Order {
  order: string;
  from: string;
  to: string;
  amount: number;
}

const cellOf = (accountId: string) => accountId.slice(0, accountId.indexOf(':'));
/** What a cell owes the others of an asset: over all cells it adds up to 0 when nothing is in flight. */
const clearingOf = (accountId: string, asset: string) => `${cellOf(accountId)}:clearing.${asset.replaceAll('/', '-')}`;

/** The keys of a cell are in its database, so each cell has its own. */
function clientOf(accountId: string): Client {
  const url = process.env.BALANCE_URL ?? 'http://localhost:3000';
  return createClient({ url, token: process.env[`BALANCE_TOKEN_${cellOf(accountId).toUpperCase()}`] });
}

/**
 * The payer's cell holds the money, the receiver's cell decides, the payer's cell follows. Every
 * step is safe to repeat, because a hold id is never used twice and a hold ends only once.
 * @returns whether the money moved.
 */
async function transferBetweenCells({ order, from, to, amount }: Order): Promise<boolean> {
  const [payer, receiver] = [clientOf(from), clientOf(to)];
  const { asset } = await payer.readAccount(from);
  const [payerClearing, receiverClearing] = [clearingOf(from, asset), clearingOf(to, asset)];
  await requireAsset(
    asset,
    ...[payer.readAccount(payerClearing), receiver.readAccount(receiverClearing), receiver.readAccount(to)],
  );
  const notes = { reference: order, metadata: { from, to } };
  // It does not expire: it must last until the other cell has decided.
  const hold = { holdId: order, amount, ...notes };

  const held = await payer.placeHold(from, hold);
  console.log(`${from}: ${amount} is held`);

  const credit = await receiver.placeHold(receiverClearing, hold);
  const isCredited = (await decide()) === 'captured';
  console.log(isCredited ? `${to}: ${amount} is credited` : `${to}: nothing is credited`);

  const wanted = isCredited ? 'captured' : 'released';
  const status = held.status === wanted ? wanted : await carryOut();
  if (isCredited !== (status === 'captured'))
    throw new Error(`${from}: somebody else ended the hold ${order}: ${status}`);
  console.log(isCredited ? `${from}: ${amount} is debited` : `${from}: ${amount} is available again`);
  return isCredited;

  /** The point of no return, whichever run comes first: this hold is captured to the receiver, or released. */
  async function decide(): Promise<Hold['status']> {
    if (credit.status !== 'active') return credit.status;
    if (held.status === 'active' || held.status === 'captured') {
      try {
        return await endOf(receiver.captureHold(receiverClearing, order, { to, ...notes }));
      } catch (error) {
        if (!(error instanceof BalanceError && error.accountId === to)) throw error;
        console.log(`${to}: ${error.message}`); // it is closed, frozen or full
      }
    }
    return endOf(receiver.releaseHold(receiverClearing, order, notes));
  }

  function carryOut(): Promise<Hold['status']> {
    return isCredited
      ? endOf(payer.captureHold(from, order, { to: payerClearing, ...notes }))
      : endOf(payer.releaseHold(from, order, notes));
  }
}

/** How a hold ended, by this call or before it. */
async function endOf(ending: Promise<{ hold: Hold }>): Promise<Hold['status']> {
  try {
    return (await ending).hold.status;
  } catch (error) {
    if (error instanceof BalanceError && error.hold) return error.hold.status; // it had ended
    throw error;
  }
}

/** Cells do not compare assets with each other. That of an account never changes. */
async function requireAsset(wanted: string, ...reading: Promise<Account>[]): Promise<void> {
  for (const { id, asset } of await Promise.all(reading)) {
    if (asset !== wanted) refuse(`${id} counts ${asset}, and not ${wanted}.`);
  }
}

const { order, from, to } = given;
const amount = wholeOption('amount', given.amount, undefined, Number.MAX_SAFE_INTEGER);
if (!order || !from || !to || !amount) refuse('--order, --from, --to and --amount are required.');
if (cellOf(from) === cellOf(to)) refuse('Both accounts are in one cell: make an ordinary transfer.');
try {
  process.exitCode = (await transferBetweenCells({ order, from, to, amount })) ? 0 : REFUSED;
} catch (error) {
  if (!(error instanceof BalanceError)) throw error;
  console.error(`${order} is not finished: ${error.message}`);
  process.exitCode = 1;
}
