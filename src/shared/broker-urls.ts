// AMQP_URL: a whole URL for each node of one RabbitMQ cluster, separated by commas. One node is the usual case.
import { unescape as decode } from 'node:querystring'; // as amqplib decodes them
import { BROKER_TLS_PARAMETERS } from './broker-tls.ts';
import { hasHostList } from './host-list.ts';

/** A comma separates only if a URL follows: a password may contain commas. */
const SEPARATOR = /\s*,\s*(?=amqps?:\/\/)/i;

const PORTS: Record<string, string> = { 'amqp:': '5672', 'amqps:': '5671' };

/** Each URL of the list, in its order; at least one. */
export function brokerUrls(list: string): [string, ...string[]] {
  return list.split(SEPARATOR) as [string, ...string[]];
}

/** The URLs in random order, so that many clients spread over the nodes. */
export function shuffledBrokerUrls(list: string): [string, ...string[]] {
  const drawn = brokerUrls(list).map((url) => ({ url, by: Math.random() }));
  return drawn.sort((one, other) => one.by - other.by).map(({ url }) => url) as [string, ...string[]];
}

/** `host:port` of one URL, fit for a log line. */
export function brokerOf(url: string): string {
  const { protocol, hostname, port } = new URL(url);
  return `${hostname || 'localhost'}:${port || PORTS[protocol]}`;
}

/** The virtual host that one URL names. */
export function vhostOf(url: string): string {
  return decode(new URL(url).pathname.slice(1)) || '/';
}

/**
 * What is wrong with the list, worded to follow its name; undefined if nothing is. Never quotes a
 * URL.
 */
export function problemOfBrokerUrls(list: string): string | undefined {
  const urls = brokerUrls(list);
  for (const [index, url] of urls.entries()) {
    const problem = problemOfOne(url);
    if (problem !== undefined) return urls.length === 1 ? problem : `(URL ${index + 1} of ${urls.length}) ${problem}`;
  }
  // Each virtual host has its own queues: events would go where no subscriber reads them.
  if (new Set(urls.map(vhostOf)).size > 1)
    return 'names different virtual hosts: all of its URLs must name the same one';
  return undefined;
}

function problemOfOne(url: string): string | undefined {
  if (!/^amqps?:\/\//.test(url)) return 'must be an AMQP URL, starting with amqp:// or amqps://';
  if (hasHostList(url)) {
    return 'names several hosts in one URL: give a whole URL for each, amqp://user:password@one:5672,amqp://user:password@two:5672';
  }
  if (!URL.canParse(url)) {
    return 'is not a correct URL: percent-encode special characters in the user, password and virtual host';
  }
  if (url.startsWith('amqp:') && BROKER_TLS_PARAMETERS.some((name) => url.includes(`${name}=`))) {
    return 'names files for TLS, but amqp:// does not use TLS: start it with amqps://';
  }
  return undefined;
}
