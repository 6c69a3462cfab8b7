// Which addresses only this machine can reach.
import { isIPv4 } from 'node:net';

/** @param host as given to listen(): a name or an IP address. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'));
}
