// A request that waits in a line for its turn: for as long as its client does, and no longer than a
// time.
import type { ServerResponse } from 'node:http';
import type { Line, Place } from '../shares/line.ts';
import { RequestProblem } from './problems.ts';

/**
 * Resolves when the server of the line calls the work of the place.
 * @throws RequestProblem overloaded where there is no place, its turn does not come in time, or the
 * client has left.
 */
export function turnIn(
  line: Line<() => void>,
  client: string,
  response: ServerResponse,
  waitMs: number,
  cost?: number,
): Promise<void> {
  return new Promise((resolve, reject) => {
    if (response.destroyed) return reject(clientLeft());
    let place: Place<() => void> | undefined;
    const end = () => {
      response.off('close', onClose);
      clearTimeout(timer);
      if (place) line.leave(place);
    };
    const onClose = () => {
      end();
      reject(clientLeft());
    };
    const refuse = () => {
      end();
      reject(new RequestProblem('overloaded', { detail: 'Too many of your requests wait.' }));
    };
    const begin = () => {
      end();
      resolve();
    };
    const timer = setTimeout(refuse, waitMs);
    response.on('close', onClose);
    place = line.add(client, begin, cost, refuse);
    if (!place) refuse();
  });
}

/** The client never reads it: it ends the work of the handler. */
export function clientLeft(): RequestProblem {
  return new RequestProblem('overloaded', { detail: 'The client has left.' });
}
