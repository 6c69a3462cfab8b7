import express, { type Request, type Response } from 'express';
import { expect, it } from 'vitest';
import { ofExpress } from '../../src/api/http/express-messages.ts';
import { startServer } from '../../src/api/http/server.ts';

it('leaves Express no prototype to set, and everything that Express offers', async () => {
  const app = express();
  const prototypes: unknown[] = [];
  app.get('/', (request, response) => {
    prototypes.push(Object.getPrototypeOf(request), Object.getPrototypeOf(response));
    response.json({ query: request.query, isOfApp: request.app === app && response.app === app });
  });
  const listener = ofExpress(app, (request, response) => {
    prototypes.push(Object.getPrototypeOf(request), Object.getPrototypeOf(response));
    app(request as Request, response as Response);
  });
  const server = await startServer(listener, '127.0.0.1', 0);
  const answer = await fetch(`http://127.0.0.1:${server.port}/?a=1`);
  expect(await answer.json()).toEqual({ query: { a: '1' }, isOfApp: true });
  await server.stop();
  const [request, response, requestLater, responseLater] = prototypes;
  expect(requestLater).toBe(request);
  expect(responseLater).toBe(response);
});
