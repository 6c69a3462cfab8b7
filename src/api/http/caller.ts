// What the log records about the sender of a request: its id and its address.
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

export const REQUEST_ID = 'x-request-id';
/**
 * Ids in use (UUIDs, ULIDs, what proxies and trace systems make) have no other characters. Sent
 * twice, they are joined by a comma.
 */
const SANE_REQUEST_ID = /^[A-Za-z0-9._:=+/-]{1,128}$/;
const FORWARDED_CHARACTERS_MAX = 200;

/**
 * The client's own id, so that its log and ours agree; a new one if it sent none, or an unusual
 * one.
 */
export function requestIdOf({ headers }: IncomingMessage): string {
  const sent = headers[REQUEST_ID];
  return typeof sent === 'string' && SANE_REQUEST_ID.test(sent) ? sent : createRequestId();
}

/** Random: a counter would reveal to each client how many requests others send. */
export const createRequestId = (): string => randomUUID();

/** As it was answered. */
export function requestIdIn(response: ServerResponse): string | undefined {
  return response.getHeader(REQUEST_ID)?.toString();
}

/** A closed connection no longer has its address, and its last request may be logged after that. */
const addresses = new WeakMap<Socket, string>();

export function noteAddress(socket: Socket): void {
  if (socket.remoteAddress !== undefined) addresses.set(socket, socket.remoteAddress);
}

/** Of the other end of the connection: of a load balancer, where there is one. */
export function addressOf({ socket }: IncomingMessage): string | undefined {
  return addresses.get(socket);
}

/** What X-Forwarded-For says: true only where the load balancer sets it. */
export function forwardedForOf({ headers }: IncomingMessage): string | undefined {
  return headers['x-forwarded-for']?.toString().slice(0, FORWARDED_CHARACTERS_MAX);
}
