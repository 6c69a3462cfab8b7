// Runs in the browser, behind Swagger UI's own script.
import { createExamples } from './examples.js';

/** Also where there is no TLS: crypto.randomUUID is only for pages that came by it. */
const newId = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('');
const { request, response } = createExamples(newId);

window.SwaggerUIBundle({
  url: 'openapi.json',
  dom_id: '#page',
  deepLinking: true,
  validatorUrl: null,
  requestInterceptor: request,
  responseInterceptor: response,
});
