// Creates requests and responses with Express's prototypes from the start. Otherwise Express sets
// the prototype of each one later, and V8 pays for that on every later use of the object: 6 % of
// the API's CPU time for an update.
import { IncomingMessage, type RequestListener, ServerResponse } from 'node:http';
import type { Express } from 'express';

/** A listener, and the classes of what the server passes to it where these are not Node's own. */
export type Listener = RequestListener & {
  messages?: { IncomingMessage: typeof IncomingMessage; ServerResponse: typeof ServerResponse };
};

/** @param listener passes every request to the application, which must not serve anything else. */
export function ofExpress(app: Express, listener: RequestListener): Listener {
  class ExpressRequest extends IncomingMessage {}
  class ExpressResponse extends ServerResponse {}
  app.request = Object.setPrototypeOf(ExpressRequest.prototype, app.request);
  app.response = Object.setPrototypeOf(ExpressResponse.prototype, app.response);
  return Object.assign(listener, {
    messages: { IncomingMessage: ExpressRequest, ServerResponse: ExpressResponse as typeof ServerResponse },
  });
}
