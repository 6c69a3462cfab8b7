// The key that a request came with, as the access check left it.
import type { Response } from 'express';
import type { ApiKey } from './key-ring.ts';

/** Undefined with AUTH=off. */
export function keyOf(response: Response): ApiKey | undefined {
  return response.locals.key;
}

/** The client that sent a request, recorded with its changes; null with AUTH=off. */
export function actorOf(response: Response): string | null {
  return keyOf(response)?.actor ?? null;
}
