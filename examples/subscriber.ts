// A subscriber: prints each change as it happens, in the order of versions within its account.
//
//   npm run example:subscriber
//
// Your own program has `queue: 'billing'`, and stores how far it handled each account in its
// database, in the transaction of what it does with the event: then nothing is missed or done twice
// while it is down. docs/client.md shows that.
//
// The queue of this example has no name of its own, so its user of RabbitMQ needs the rights for
// `^amq\.gen-`.
import { createClient } from 'highload-balance';
import { subscribe } from 'highload-balance/client/events';
import { takesNoOptions } from '../src/cli/command-line.ts';
import { readRuntime } from '../src/shared/runtime.ts';

takesNoOptions(`usage: npm run example:subscriber

Prints each change as it happens, until Ctrl-C. AMQP_URL, AMQP_NAMESPACE, BALANCE_URL and BALANCE_TOKEN say where; unset,
the npm start of this clone.`);

const runtime = readRuntime(); // of npm start in this clone; your own program only has its settings
const url = process.env.AMQP_URL ?? runtime?.amqpUrl ?? 'amqp://localhost:5672';
const namespace = process.env.AMQP_NAMESPACE ?? runtime?.namespace ?? 'balance';

const subscription = subscribe({
  url,
  namespace,
  // Asked where an event does not follow: whether it is in the account's history.
  client: createClient({
    url: process.env.BALANCE_URL ?? runtime?.url ?? 'http://localhost:3000',
    token: process.env.BALANCE_TOKEN || undefined,
  }),
  // Neither queue nor lastHandled: the queue lives as long as this program, and begins with what
  // happens now.
  handle({ time, type, data }) {
    const { accountId, version, amount, balance, held, reference = '' } = data;
    const state = `balance ${balance}${held > 0 ? `, held ${held}` : ''}`;
    console.log(`${time}  ${type}  ${accountId} #${version}  ${amount}  ${state}  ${reference}`.trimEnd());
  },
  onGap({ accountId, firstMissing, lastMissing }) {
    console.error(`${accountId}: versions ${firstMissing} to ${lastMissing} are missing; its entries have them`);
    return 'skip';
  },
  onRewind({ accountId, last, shared }) {
    console.error(
      shared
        ? `${accountId}: the database lost #${shared.version + 1} to #${last.version}; take back what they did`
        : `${accountId}: its entries fork from what was handled up to #${last.version}; compare them by hand`,
    );
  },
  onProblem: ({ message }) => console.error(message),
});
console.log(`waiting for events of ${namespace}.events; Ctrl-C ends`);
process.on('SIGINT', () => subscription.stop());
