// Writes JSON answers without what Express would do for each request: content negotiation, an ETag.
import type { ServerResponse } from 'node:http';
import { encodeInPieces, type Pieces } from './pieces.ts';

export function sendJson(response: ServerResponse, body: object): void {
  const text = JSON.stringify(body);
  response.setHeader('content-type', 'application/json');
  response.setHeader('content-length', Buffer.byteLength(text));
  response.end(text);
}

/**
 * The same for an answer with a long list, which is made in pieces.
 * @param before the members before the list, at least one; `after` those after it, at least one.
 */
export async function sendJsonList<Item>(
  response: ServerResponse,
  before: object,
  name: string,
  { items, bodyOf }: { items: readonly Item[]; bodyOf: (item: Item) => object },
  after: object,
  pieces: Pieces,
): Promise<void> {
  const textOf = (item: Item, index: number) => (index === 0 ? '' : ',') + JSON.stringify(bodyOf(item));
  const list = await pieces.run((pause) => encodeInPieces(items, textOf, pause));
  const head = Buffer.from(`${JSON.stringify(before).slice(0, -1)},${JSON.stringify(name)}:[`);
  const parts = [head, ...list, Buffer.from(`],${JSON.stringify(after).slice(1)}`)];
  response.setHeader('content-type', 'application/json');
  response.setHeader(
    'content-length',
    parts.reduce((sum, { length }) => sum + length, 0),
  );
  for (const part of parts) response.write(part);
  response.end();
}
