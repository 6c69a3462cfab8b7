// Turns RabbitMQ's refusals into a sentence that says what to change. Everything else resolves by
// waiting.
import { unescape as decode } from 'node:querystring'; // as amqplib decodes them
import { brokerOf, brokerUrls, vhostOf } from './broker-urls.ts';
import { withoutPassword } from './without-password.ts';

/** Thrown when each of several nodes was tried; says why each one failed. */
export class NoBroker extends Error {
  override name = 'NoBroker';
  readonly failures: readonly { url: string; error: unknown }[];

  constructor(failures: NoBroker['failures']) {
    super(failures.map(({ url, error }) => `${brokerOf(url)}: ${wordsOf(error)}`).join('; '));
    this.failures = failures;
  }
}

/** What to do about a failure that lasts until an operator acts; undefined if waiting is enough. */
export function brokerAdvice(url: string, error: unknown): string | undefined {
  const { message } = error as Error;
  const vhost = vhostOf(url);
  const user = decode(new URL(url).username) || 'guest';
  if (/Handshake terminated.*ACCESS.REFUSED/.test(message)) {
    return `RabbitMQ refuses the user "${user}" or the password in AMQP_URL. Correct them there, or in RabbitMQ (rabbitmqctl authenticate_user); it accepts the user guest only from its own machine.`;
  }
  // The error of amqplib when a broker closes the connection after the login.
  if (message.includes('Expected ConnectionOpenOk')) {
    return `RabbitMQ refuses the virtual host "${vhost}" in AMQP_URL: it does not exist, the user "${user}" has no permissions in it, or it has reached its connection limit. Correct the URL, or in RabbitMQ: rabbitmqctl add_vhost, set_permissions, set_vhost_limits.`;
  }
  if (/ACCESS.REFUSED/.test(message)) {
    return `The user "${user}" lacks a permission in the virtual host "${vhost}". Grant configure, write and read on the names of this service: rabbitmqctl set_permissions. RabbitMQ says: ${textOf(message)}`;
  }
  if (message.includes('inequivalent arg')) {
    return `A queue or exchange exists with other properties than this release requires. Read its messages (dead letters: npm run dead-letters), then delete it (rabbitmqctl delete_queue): it is created again within seconds, and missing ledger entries are published again. RabbitMQ says: ${textOf(message)}`;
  }
  if (/RESOURCE.LOCKED/.test(message)) {
    return `A queue belongs exclusively to another connection. Close that connection, or give this system another AMQP_NAMESPACE. RabbitMQ says: ${textOf(message)}`;
  }
  return undefined;
}

/**
 * A sentence for a person whose AMQP_URL does not work, with a reason for each node that was tried.
 */
export function describeBrokerFailure(amqpUrl: string, error: unknown): string {
  if (error instanceof NoBroker) {
    return error.failures.map((failure) => describeBrokerFailure(failure.url, failure.error)).join('\n');
  }
  const urls = brokerUrls(amqpUrl);
  const reason = brokerAdvice(urls[0], error) ?? wordsOf(error);
  return `RabbitMQ at ${urls.map(withoutPassword).join(' or ')} cannot be used: ${reason}`;
}

/** A refused connection to a name with two addresses comes as an AggregateError without a message of its own. */
export function wordsOf(error: unknown): string {
  const { message, code } = error as NodeJS.ErrnoException;
  return message || code || String(error);
}

/** The broker's own words in an error of amqplib. */
function textOf(message: string): string {
  return /with message "(.*)"$/s.exec(message)?.[1] ?? message;
}
