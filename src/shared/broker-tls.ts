// TLS to RabbitMQ by URL: an amqps URL may name files, as parameters that RabbitMQ's own clients
// know. The server's certificate and host name are always verified.
// https://www.rabbitmq.com/docs/uri-query-parameters
import { readFileSync } from 'node:fs';

const FILES = { cacertfile: 'ca', certfile: 'cert', keyfile: 'key' } as const;

/**
 * The parameters, each with the name of a PEM file: the CA of the server's certificate, and our own
 * certificate.
 */
export const BROKER_TLS_PARAMETERS = Object.keys(FILES) as (keyof typeof FILES)[];

/**
 * What an AMQP URL says about TLS, as options for the socket. Reads the files each time, so that a
 * renewed certificate is used from the next connection on. @throws when a file cannot be read.
 */
export function brokerTlsOptions(amqpUrl: string): { ca?: Buffer; cert?: Buffer; key?: Buffer } {
  const { searchParams } = new URL(amqpUrl);
  const named = BROKER_TLS_PARAMETERS.flatMap((parameter) => {
    const file = searchParams.get(parameter);
    return file ? [[FILES[parameter], readFileSync(file)]] : [];
  });
  return Object.fromEntries(named);
}
