// Checks whether a broker accepts our login and can do what the service needs: performs the AMQP
// handshake, within a bounded time. Leaves no connection open.
import amqp from 'amqplib';
import { brokerTlsOptions } from '../shared/broker-tls.ts';
import { within } from '../shared/within.ts';

// The first version whose quorum queues dead-letter at least once, which `<namespace>.ledger` relies on.
const RABBITMQ_VERSION_MIN = [3, 10] as const;
const CLOSE_TIMEOUT_MS = 1_000;

export type ProbeResult = { answer: 'ready'; version: string } | { answer: 'refused' | 'unreachable'; reason: string };

export async function probeBroker(url: string, timeoutMs: number): Promise<ProbeResult> {
  let connection: amqp.ChannelModel;
  try {
    connection = await connectWithin(url, timeoutMs);
  } catch (error) {
    const reason = reasonOf(error);
    const isRefusal = /ACCESS_REFUSED|NOT_ALLOWED/.test(reason);
    return { answer: isRefusal ? 'refused' : 'unreachable', reason };
  }
  const { product, version } = connection.connection.serverProperties;
  await closeWithin(connection, CLOSE_TIMEOUT_MS);
  if (product !== 'RabbitMQ') return { answer: 'refused', reason: `it is ${product} ${version}, not RabbitMQ` };
  if (!isRecent(version)) {
    return {
      answer: 'refused',
      reason: `it is RabbitMQ ${version}, ${RABBITMQ_VERSION_MIN.join('.')} or later is required`,
    };
  }
  return { answer: 'ready', version };
}

async function connectWithin(url: string, timeoutMs: number): Promise<amqp.ChannelModel> {
  let isLate = false;
  // The library's timeout is for a silent socket; a broker that is starting may accept and then
  // respond slowly.
  const connecting = amqp.connect(url, { timeout: timeoutMs, ...brokerTlsOptions(url) }).then((connection) => {
    connection.on('error', () => undefined);
    if (isLate) void closeWithin(connection, CLOSE_TIMEOUT_MS);
    return connection;
  });
  return within(timeoutMs, connecting, () => {
    isLate = true;
    throw new Error(`no answer within ${timeoutMs} ms`);
  });
}

// close() waits for the broker's answer, indefinitely if that never comes.
async function closeWithin(connection: amqp.ChannelModel, timeoutMs: number): Promise<void> {
  await within(timeoutMs, connection.close(), () => {}).catch(() => undefined);
}

function isRecent(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const [majorMin, minorMin] = RABBITMQ_VERSION_MIN;
  return major > majorMin || (major === majorMin && minor >= minorMin);
}

// A refused connection to a name with two addresses comes as an AggregateError without a message of its own.
function reasonOf(error: unknown): string {
  const { message, code } = error as NodeJS.ErrnoException;
  // The library's error when a broker closes the connection after the login.
  if (message?.includes('Expected ConnectionOpenOk')) return 'NOT_ALLOWED: no such virtual host for this user';
  return message || code || String(error);
}
