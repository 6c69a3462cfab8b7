// The ceiling: our express, our reading, checking and answering of the same POST, with a constant instead of a
// database. What remains is what HTTP costs.
import { once } from 'node:events';
import express, { type Request, type RequestHandler, type Response } from 'express';
import { balanceUpdateBody } from '../../src/api/calls/balance-update-calls.ts';
import { ofExpress } from '../../src/api/http/express-messages.ts';
import { check, idempotencyKeyOf, traceparentOf } from '../../src/api/http/input.ts';
import { sendJson } from '../../src/api/http/json-answer.ts';
import { createBodyReader } from '../../src/api/http/json-body.ts';
import { createPieces } from '../../src/api/http/pieces.ts';
import { startServer } from '../../src/api/http/server.ts';

const BODY_BYTES_MAX = 16_384;

const { readJsonBody } = createBodyReader(createPieces());

const update: RequestHandler = async (request, response) => {
  const { accountId, amount } = check(balanceUpdateBody, await readJsonBody(request, BODY_BYTES_MAX));
  idempotencyKeyOf(request);
  traceparentOf(request);
  sendJson(response, { accountId, amount, balance: 1000, version: 1000, eventId: 'hot:1000', createdAt: new Date() });
};

const app = express();
app.disable('x-powered-by');
app.disable('etag');
app.enable('case sensitive routing');
app.enable('strict routing');
app.set('query parser', 'simple');
app.post('/v1/balance-updates', update);

await startServer(
  ofExpress(app, (request, response) => app(request as Request, response as Response)),
  '127.0.0.1',
  Number(process.env.PORT),
);
process.send?.('ready');
await once(process, 'disconnect');
process.exit();
