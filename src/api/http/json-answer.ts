// Writes a JSON answer in one piece, without what Express would do for each request: content negotiation, an ETag.
import type { ServerResponse } from 'node:http';

export function sendJson(response: ServerResponse, body: object): void {
  const text = JSON.stringify(body);
  response.setHeader('content-type', 'application/json');
  response.setHeader('content-length', Buffer.byteLength(text));
  response.end(text);
}
