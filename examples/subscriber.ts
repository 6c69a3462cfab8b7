// A subscriber: binds a queue of its own to the events of highload-balance and prints each change as it happens.
//
//   npm run example:subscriber
//
// Delivery is at least once, and an old version may come again or a later one first. The version makes that harmless:
// drop what is not above the last one seen, hold what leaves a gap, report a gap that stays.
import amqp from 'amqplib';
import { readRuntime } from '../src/local/runtime.ts';

const GAP_TIMEOUT_MS = 10_000;

interface BalanceEvent {
  id: string;
  type: 'balance.credited' | 'balance.debited';
  time: string;
  data: { accountId: string; version: number; amount: number; balance: number; reference?: string };
}

/** Per account: the last version handled, and those that came too early. Keep both in your database, not in memory. */
const accounts = new Map<string, { version: number; early: Map<number, BalanceEvent>; gapTimer?: NodeJS.Timeout }>();

function handle({ data, type, time }: BalanceEvent): void {
  const reference = data.reference === undefined ? '' : `  ${data.reference}`;
  console.log(
    `${time}  ${type}  ${data.accountId} #${data.version}  ${data.amount}  balance ${data.balance}${reference}`,
  );
}

function inOrder(event: BalanceEvent): void {
  const { accountId, version } = event.data;
  // This example starts where it finds an account; a copy of the balances would start from the ledger.
  const account = accounts.get(accountId) ?? { version: version - 1, early: new Map<number, BalanceEvent>() };
  accounts.set(accountId, account);
  if (version <= account.version) return; // delivered before
  account.early.set(version, event);
  for (let next = account.early.get(account.version + 1); next; next = account.early.get(account.version + 1)) {
    handle(next);
    account.early.delete(next.data.version);
    account.version = next.data.version;
  }
  clearTimeout(account.gapTimer);
  if (account.early.size > 0) {
    const report = () => console.error(`${accountId}: version ${account.version + 1} is still missing`);
    account.gapTimer = setTimeout(report, GAP_TIMEOUT_MS);
  }
}

const runtime = readRuntime(); // of npm start in this clone; your own program only has AMQP_URL
const url = process.env.AMQP_URL ?? runtime?.amqpUrl ?? 'amqp://localhost:5672';
const exchange = `${process.env.AMQP_NAMESPACE ?? runtime?.namespace ?? 'balance'}.events`;

const connection = await amqp.connect(url, { timeout: 5000, noDelay: true });
connection.on('error', () => {}); // followed by close
connection.on('close', (error) => {
  console.error(`the connection to RabbitMQ ended${error ? `: ${error.message}` : ''}`);
  process.exit(error ? 1 : 0);
});
const channel = await connection.createChannel();
await channel.checkExchange(exchange);
// Exclusive: it lives as long as this program. A real subscriber uses a durable quorum queue with a name of its own,
// and leaves it without x-overflow=reject-publish: a full queue of that kind refuses events for everybody.
const { queue } = await channel.assertQueue('', { exclusive: true });
await channel.bindQueue(queue, exchange, 'balance.*'); // or balance.credited, balance.debited
await channel.prefetch(100);
await channel.consume(queue, (message) => {
  if (!message) return process.exit(1); // the queue was deleted
  // One event, or under load a batch of them where the operator allows it.
  const body: BalanceEvent | BalanceEvent[] = JSON.parse(message.content.toString());
  for (const event of Array.isArray(body) ? body : [body]) inOrder(event);
  channel.ack(message); // after handling, so that a crash in between delivers it again
});
console.log(`waiting for events of ${exchange}; Ctrl-C ends`);
process.on('SIGINT', () => connection.close());
