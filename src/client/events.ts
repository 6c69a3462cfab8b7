// The events of the service for a subscriber: each handled at least once, in the order of versions within its account, and
// a version that stays away is reported. Runs until stopped, over any number of connections. Needs amqplib.
// docs/client.md describes it for its users.
import { answered, type BrokerSession, keepBrokerLink, type LinkFailure } from '../shared/broker.ts';
import { consume, queueIn } from './consume.ts';
import { createInOrder } from './in-order.ts';
import type { Problem, SubscribeOptions, Subscription } from './subscription.ts';

export type { BalanceEvent, ChangeType } from '../shared/contract.ts';
export type { Delivery, Gap, Problem, SubscribeOptions, Subscription } from './subscription.ts';

/** Begins to connect. @throws TypeError when an option is wrong. */
export function subscribe(options: SubscribeOptions): Subscription {
  const { signal } = options;
  const url = amqpUrl(options.url);
  const limits = {
    concurrency: whole('concurrency', options.concurrency ?? 1, 1000),
    prefetch: whole('prefetch', options.prefetch ?? 2000, 65_535),
    gapTimeoutMs: whole('gapTimeoutMs', options.gapTimeoutMs ?? 10_000, 3_600_000),
  };
  const queue = queueIn(options);
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
    // By its answer RabbitMQ has the last acknowledgements: closing the connection alone overtakes them.
    if (stopped) await answered('closing the channel', channel.close());
  }

  // Without the link's advice, which is for the queues of the service.
  const onFailure = ({ err: error, attempt, pauseMs }: LinkFailure) =>
    report({ kind: 'disconnected', message: `RabbitMQ: ${error.message || String(error)}`, error, attempt, pauseMs });
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

/** A report that fails may not end what it reports about. */
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
  if (URL.canParse(url) && /^amqps?:$/.test(new URL(url).protocol)) return url;
  throw new TypeError('url must be an AMQP URL, such as amqp://user:password@localhost:5672/vhost');
}

function whole(name: string, value: number, max: number): number {
  if (Number.isInteger(value) && value >= 1 && value <= max) return value;
  throw new TypeError(`${name} must be a whole number from 1 to ${max}`);
}
