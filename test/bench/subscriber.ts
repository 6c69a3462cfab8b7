// A subscriber beside the load: a durable queue that is read as fast as it fills. Its CPU is not the service's.
import { closeConnection, connect } from '../../src/shared/broker.ts';
import { ALL_EVENTS, topologyOf } from '../../src/shared/topology.ts';

const { eventsExchange } = topologyOf(process.env.AMQP_NAMESPACE as string);
const connection = await connect(process.env.AMQP_URL as string, 'bench subscriber');
const channel = await connection.createChannel();
await channel.assertExchange(eventsExchange, 'topic', { durable: true });
const queue = `${eventsExchange}.bench`;
await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
await channel.bindQueue(queue, eventsExchange, ALL_EVENTS);
await channel.prefetch(2000);
let last: Parameters<typeof channel.ack>[0] | undefined;
await channel.consume(queue, (message) => {
  if (message && !last) setTimeout(acknowledge, 20);
  last = message ?? undefined;
});
function acknowledge(): void {
  if (last) channel.ack(last, true);
  last = undefined;
}
process.on('SIGTERM', () => void closeConnection(connection).then(() => process.exit(0)));
process.send?.('ready');
