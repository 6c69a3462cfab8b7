// The events of the service for a subscriber: each handled at least once, in the order of versions
// within its account. Missing versions are reported, and so is a cut history, before anything of
// the new one is handled. Runs until stopped, over any number of connections. Needs amqplib.
// docs/client.md describes it for its users.
import { answered, type BrokerSession, keepBrokerLink, type LinkFailure } from '../shared/broker.ts';
import { wordsOf } from '../shared/broker-failure.ts';
import { problemOfBrokerUrls } from '../shared/broker-urls.ts';
import { checkNames, type Names, whole } from './arguments.ts';
import { consume, queueIn } from './consume.ts';
import { createInOrder } from './in-order.ts';
import type { Problem, SubscribeOptions, Subscription } from './subscription.ts';

export type { BalanceEvent, ChangeBody, ChangeType, EntriesPage, Entry, EventData } from '../shared/contract.ts';
export type { Handled } from './history.ts';
export type { EntriesReader } from './standing.ts';
export type { Delivery, Gap, GapAnswer, Problem, Rewind, SubscribeOptions, Subscription } from './subscription.ts';

const OPTIONS = {
  ...{ url: true, namespace: true, queue: true, declareQueue: true, client: true },
  ...{ lastHandled: true, handle: true, onGap: true, onRewind: true, onProblem: true },
  ...{ concurrency: true, prefetch: true, gapTimeoutMs: true, signal: true },
} as const satisfies Names<SubscribeOptions>;

/** Begins to connect. @throws TypeError when an option is wrong. */
export function subscribe(options: SubscribeOptions): Subscription {
  checkNames('subscribe', ['options', options, OPTIONS]);
  for (const name of ['handle', 'onGap', 'onRewind'] as const)
    if (typeof options[name] !== 'function') throw new TypeError(`${name} must be a function`);
  const { signal } = options;
  const url = amqpUrl(options.url);
  const limits = {
    concurrency: whole('concurrency', options.concurrency ?? 1, 1000),
    prefetch: whole('prefetch', options.prefetch ?? 2000, 65_535),
    gapTimeoutMs: whole('gapTimeoutMs', options.gapTimeoutMs ?? 10_000, 3_600_000),
  };
  const queue = queueIn(options);
  if (typeof options.client?.readEntries !== 'function')
    throw new TypeError('client must be what createClient() returns');
  const report = reporter(options.onProblem);
  const inOrder = createInOrder(options, limits, report);
  let isConsuming = false;
  let stopped: Promise<void> | undefined;

  async function run(session: BrokerSession): Promise<void> {
    session.signal.addEventListener('abort', () => {
      isConsuming = false;
      inOrder.forget();
    });
    const channel = await consume(session, queue, limits.prefetch, inOrder, report);
    isConsuming = !session.signal.aborted;
    await new Promise((resolve) => {
      session.signal.addEventListener('abort', resolve);
      if (session.signal.aborted) resolve(undefined);
    });
    // Its answer means that RabbitMQ has the last acknowledgements: closing only the connection
    // could overtake them.
    if (stopped) await answered('closing the channel', channel.close());
  }

  // Without the link's advice, which is about the queues of the service.
  const onFailure = ({ err: error, broker, attempt, pauseMs }: LinkFailure) =>
    report({ kind: 'disconnected', message: `RabbitMQ at ${broker}: ${wordsOf(error)}`, error, attempt, pauseMs });
  const link = keepBrokerLink({
    url,
    service: 'subscriber',
    log: { info() {}, warn: onFailure, error: onFailure },
    run,
  });

  function stop(): Promise<void> {
    signal?.removeEventListener('abort', stop);
    stopped ??= inOrder.stop().then(() => link.stop());
    return stopped;
  }
  signal?.addEventListener('abort', stop);
  if (signal?.aborted) void stop();

  return {
    get isConsuming() {
      return isConsuming;
    },
    stop,
  };
}

/** A failing report must not end the subscription. */
function reporter(onProblem: SubscribeOptions['onProblem']): (problem: Problem) => void {
  const warn = (message: string) => process.emitWarning(message, 'BalanceSubscription');
  return (problem) => {
    if (!onProblem) return warn(problem.message);
    try {
      onProblem(problem);
    } catch (error) {
      warn(`onProblem failed: ${String(error)}`);
    }
  };
}

function amqpUrl(url: string): string {
  const problem = typeof url === 'string' ? problemOfBrokerUrls(url) : 'must be a string';
  if (problem === undefined) return url;
  throw new TypeError(`url ${problem}`);
}
