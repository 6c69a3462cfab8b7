// Requests and answers of an Express application that have the prototypes of Express from the
// start. Express would give them to each, and V8 pays for that with every later use of the object:
// 6 % of the API's CPU time for an update.
import { IncomingMessage, type RequestListener, ServerResponse } from 'node:http';
import type { Express } from 'express';

/** A listener, and the classes of what the server passes to it where these are not Node's own. */
export type Listener = RequestListener & {
  messages?: { IncomingMessage: typeof IncomingMessage; ServerResponse: typeof ServerResponse };
};

/** @param listener passes what it gets on to the application, which serves nothing else. */
export function ofExpress(app: Express, listener: RequestListener): Listener {
  class ExpressRequest extends IncomingMessage {}
  class ExpressResponse extends ServerResponse {}
  app.request = Object.setPrototypeOf(ExpressRequest.prototype, app.request);
  app.response = Object.setPrototypeOf(ExpressResponse.prototype, app.response);
  return Object.assign(listener, {
    messages: { IncomingMessage: ExpressRequest, ServerResponse: ExpressResponse as typeof ServerResponse },
  });
}
