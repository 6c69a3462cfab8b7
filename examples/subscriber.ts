// A subscriber: prints each change as it happens, in the order of versions within its account.
//
//   npm run example:subscriber
//
// Your own program says `queue: 'billing'`, and keeps the last version of each account in its database, written in the
// transaction of what it does with the event: then nothing is missed or done twice while it is away.
import { subscribe } from 'highload-balance/client/events';
import { readRuntime } from '../src/local/runtime.ts';

const runtime = readRuntime(); // of npm start in this clone; your own program only has AMQP_URL
const url = process.env.AMQP_URL ?? runtime?.amqpUrl ?? 'amqp://localhost:5672';
const namespace = process.env.AMQP_NAMESPACE ?? runtime?.namespace ?? 'balance';

const subscription = subscribe({
  url,
  namespace,
  // No queue of a name: one that lives as long as this program, and begins with what happens now.
  lastVersion: () => undefined,
  handle({ time, type, data }) {
    const { accountId, version, amount, balance, reference = '' } = data;
    console.log(`${time}  ${type}  ${accountId} #${version}  ${amount}  balance ${balance}  ${reference}`.trimEnd());
  },
  onGap({ accountId, firstMissing, lastMissing }) {
    console.error(`${accountId}: versions ${firstMissing} to ${lastMissing} are missing; they stand in its ledger`);
    return 'skip';
  },
  onProblem: ({ message }) => console.error(message),
});
console.log(`waiting for events of ${namespace}.events; Ctrl-C ends`);
process.on('SIGINT', () => subscription.stop());
