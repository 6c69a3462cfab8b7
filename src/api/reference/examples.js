// Runs in the browser. Keeps the examples of the document working when they are sent from the page, however often: what a
// key, a hold or a transfer of an example stands for is put in its place before a request is sent, and shown with it.

/** As the examples have them. A test sends each of them twice. */
const KEY = 'order-1001';
const HOLD = 'checkout-1001';
const TRANSFER = 'alice:1:mwtowow0';

/** @param newId makes an id that was not used before. */
export function createExamples(newId) {
  /** The last that were made from this page; before that the server says what is not there. */
  let hold = HOLD;
  let transfer = TRANSFER;

  function inBody(body) {
    return body
      .replaceAll(/("idempotencyKey"\s*:\s*)"order-1001"/g, (_, name) => `${name}"${newId()}"`)
      .replace(/("holdId"\s*:\s*)"checkout-1001"/, (_, name) => `${name}"${newId()}"`)
      .replace(/("of"\s*:\s*)"alice:1:mwtowow0"/, (_, name) => `${name}"${transfer}"`);
  }

  return {
    /** A new key each time. What the person wrote instead of an example stays as it is. */
    request(request) {
      const { headers = {} } = request;
      if (headers['Idempotency-Key'] === KEY) headers['Idempotency-Key'] = newId();
      request.url = request.url
        .replace(`/holds/${HOLD}`, `/holds/${hold}`)
        .replace(`/transfers/${encodeURIComponent(TRANSFER)}`, `/transfers/${encodeURIComponent(transfer)}`);
      if (typeof request.body === 'string') request.body = inBody(request.body);
      return request;
    },
    response(response) {
      const { status, body } = response;
      if (status === 201 && body?.holdId) hold = body.holdId;
      if (status === 200 && body?.transferId && !body.reverses) transfer = body.transferId;
      return response;
    },
  };
}
