// What RabbitMQ refuses, as a sentence that tells a person what to change. Waiting heals everything else.
import { unescape as decode } from 'node:querystring'; // as amqplib decodes them
import { withoutPassword } from './without-password.ts';

/** What to do about a failure that repeats until somebody acts, or undefined where waiting is all there is to do. */
export function brokerAdvice(amqpUrl: string, error: unknown): string | undefined {
  const { message } = error as Error;
  const { vhost, user } = partsOf(amqpUrl);
  if (/Handshake terminated.*ACCESS.REFUSED/.test(message)) {
    return `RabbitMQ refuses the user "${user}" or the password in AMQP_URL. Correct them there, or in RabbitMQ (rabbitmqctl authenticate_user); it lets the user guest in from its own machine only.`;
  }
  // What amqplib makes of a broker that closes the connection after the login.
  if (message.includes('Expected ConnectionOpenOk')) {
    return `RabbitMQ refuses the virtual host "${vhost}" in AMQP_URL: there is none of that name, the user "${user}" has no permissions in it, or it is at its limit of connections. Correct the URL, or in RabbitMQ: rabbitmqctl add_vhost, set_permissions, set_vhost_limits.`;
  }
  if (/ACCESS.REFUSED/.test(message)) {
    return `The user "${user}" lacks a permission in the virtual host "${vhost}". Grant configure, write and read on the names of this service: rabbitmqctl set_permissions. RabbitMQ names it: ${textOf(message)}`;
  }
  if (message.includes('inequivalent arg')) {
    return `A queue or exchange of that name exists with other properties than this release gives it. Read what is in it (dead letters: npm run dead-letters), then delete it (rabbitmqctl delete_queue): it is made anew within seconds, and what the ledger lacks is published again. RabbitMQ names it: ${textOf(message)}`;
  }
  if (/RESOURCE.LOCKED/.test(message)) {
    return `A queue of that name belongs to another connection alone. End that, or give this system another AMQP_NAMESPACE. RabbitMQ names it: ${textOf(message)}`;
  }
  return undefined;
}

/** A sentence for a person whose broker URL does not work. */
export function describeBrokerFailure(amqpUrl: string, error: unknown): string {
  const { message, code } = error as NodeJS.ErrnoException;
  // A refused connection to a name with two addresses comes as an AggregateError without a message of its own.
  const reason = brokerAdvice(amqpUrl, error) ?? (message || code || String(error));
  return `RabbitMQ at ${withoutPassword(amqpUrl)} does not serve: ${reason}`;
}

function partsOf(amqpUrl: string): { vhost: string; user: string } {
  const { pathname, username } = new URL(amqpUrl);
  return { vhost: decode(pathname.slice(1)) || '/', user: decode(username) || 'guest' };
}

/** The broker's own words in an error of amqplib. */
function textOf(message: string): string {
  return /with message "(.*)"$/s.exec(message)?.[1] ?? message;
}
