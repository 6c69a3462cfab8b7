// highload-balance subscribers: the queues of subscribers, and what they missed. Its --help is the reference.
import type { ChannelModel } from 'amqplib';
import type { Management } from '../shared/broker-management.ts';
import type { Client } from '../shared/database.ts';
import { topologyOf } from '../shared/topology.ts';
import { brokerOfCommand, INTERRUPTED, runCommand, withBroker, withDatabase } from './command.ts';
import { print, printable } from './output.ts';
import { interruption } from './progress.ts';
import { describe, list } from './subscribers/list.ts';
import type { PutAside } from './subscribers/missed.ts';
import { HELP, parseRequest, type SubscribersRequest } from './subscribers/request.ts';
import { AGAIN, forget, type Resumed, resume } from './subscribers/resume.ts';

interface Servers {
  client: Client;
  connection: ChannelModel;
  exchange: string;
  management: Management | undefined;
}

async function run(request: SubscribersRequest, { client, connection, exchange, management }: Servers): Promise<void> {
  const show = <Result>(result: Result, text: (result: Result) => string) =>
    print(request.json ? JSON.stringify(result) : text(result));
  switch (request.command) {
    case 'list':
      return show(await list(client, connection, exchange, management), describe);
    case 'forget':
      return show(await forget(client, request.queue), describeForgotten);
    case 'resume': {
      const resumed = await resume(client, connection, {
        exchange,
        management,
        queue: request.queue,
        from: request.from,
        rate: request.rate,
        signal: interruption(),
      });
      show(resumed, describeResumed);
      if (!resumed.complete) process.exitCode = INTERRUPTED;
    }
  }
}

function describeResumed({ queue, routingKeys, published, scanned, handedOver, complete }: Resumed): string {
  const what = `${published} events published into the queue ${printable(queue)}; ${scanned} changes looked at`;
  if (!complete) return `${what}. Interrupted. ${AGAIN}`;
  return `${what}. ${handedOver} messages came meanwhile and follow; the queue is bound again: ${printable(routingKeys.join(' '))}`;
}

function describeForgotten({ queue, fromPosition, from }: PutAside): string {
  return `The note that the queue ${printable(queue)} misses events from position ${fromPosition} on, created at ${from.toISOString()}, was removed.`;
}

await runCommand(async () => {
  const request = parseRequest(process.argv.slice(2));
  if (request === 'help') return console.log(HELP);
  const { amqpUrl, amqpNamespace, amqpManagementUrl } = brokerOfCommand();
  const management = amqpManagementUrl === undefined ? undefined : { managementUrl: amqpManagementUrl, amqpUrl };
  const { eventsExchange: exchange } = topologyOf(amqpNamespace);
  await withDatabase('subscribers', (client) =>
    withBroker(amqpUrl, 'subscribers', (connection) => run(request, { client, connection, exchange, management })),
  );
});
