// Which addresses only this machine can reach.
import { isIPv4 } from 'node:net';

/** @param host as given to listen(): a name or an IP address. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'));
}

/** Names and addresses of this machine alone, with or without a port; `localhost` below any name is one (RFC 6761). */
const LOOPBACK_AUTHORITY = /^(([\w-]+\.)*localhost\.?|127(\.\d{1,3}){3}|\[::1\])(:\d*)?$/i;

/** @param authority the Host header of a request. */
export function isLoopbackAuthority(authority: string): boolean {
  return LOOPBACK_AUTHORITY.test(authority);
}
