// What is wrong with an answer, by the document that the service itself gives: an answer that the
// document does not state, or one from outside the document that is neither a page nor a refusal of
// the catalogue.
import { problems } from '../../src/shared/problems.ts';
import { type Call, type OpenApi, readDocument } from '../support/openapi/document.ts';
import type { Exchange } from './tap.ts';

/** What is there beside the calls of the document, for everyone. */
const PAGES = /^\/(livez|readyz|metrics|openapi\.json|asyncapi\.json|docs(\/.*)?|console(\/files\/.*)?)$/;
/** For those with a key. */
const OF_THE_CONSOLE = /^\/console\/(stream|accounts\/[^/]+\/balances)$/;
/** Answers to what never became a request of a call. */
const OF_NO_CALL = new Set([401, 404, 405]);
const NO_REQUEST = new Set([400, 408, 421, 431]);

/** @returns what says why an answer is wrong, if it is. */
export function createJudge(openApi: OpenApi): (exchange: Exchange) => string | undefined {
  const { calls, checkAnswer } = readDocument(openApi);
  const byPath = calls.map((call) => ({ call, form: formOf(call.path) }));
  // What is written out comes before what has parameters: /bulk is no id.
  byPath.sort((one, other) => one.call.path.split('{').length - other.call.path.split('{').length);

  function callOf(method: string, path: string): Call | 'another method' | undefined {
    const ofPath = byPath.filter(({ form }) => form.test(path));
    const asked = method === 'HEAD' ? 'get' : method.toLowerCase();
    return ofPath.find(({ call }) => call.method === asked)?.call ?? (ofPath.length > 0 ? 'another method' : undefined);
  }

  return ({ method, target, status, headers, body }) => {
    const path = target.replace(/[?#].*/s, '');
    const call = callOf(method, path);
    try {
      if (typeof call === 'object' && method !== 'HEAD' && !isNoRequest(status, headers)) {
        const isJson = headers.get('content-type')?.endsWith('json');
        checkAnswer(call, { status, headers, body: isJson ? JSON.parse(body) : body });
        return undefined;
      }
      if (status < 300) {
        const isThere =
          PAGES.test(path) || OF_THE_CONSOLE.test(path) || (typeof call === 'object' && method === 'HEAD');
        return isThere && ['GET', 'HEAD'].includes(method) ? undefined : 'nothing should be there';
      }
      if (path === '/' && status === 302) return undefined; // to the console
      if (!OF_NO_CALL.has(status) && !NO_REQUEST.has(status) && !(method === 'HEAD' || OF_THE_CONSOLE.test(path)))
        return 'neither there nor refused as usual';
      return method === 'HEAD' ? undefined : faultOfProblem(status, headers, body);
    } catch (error) {
      return (error as Error).message;
    }
  };
}

/** The server closes the connection of what is not HTTP, and does not look at its path. */
const isNoRequest = (status: number, headers: Headers) =>
  NO_REQUEST.has(status) && headers.get('connection') === 'close';

function faultOfProblem(status: number, headers: Headers, body: string): string | undefined {
  if (headers.get('content-type') !== 'application/problem+json') return `of type ${headers.get('content-type')}`;
  const { code, status: said } = JSON.parse(body) as { code: keyof typeof problems; status: number };
  return problems[code]?.status === status && said === status ? undefined : `not of the catalogue: ${body}`;
}

const formOf = (path: string) => new RegExp(`^${path.replaceAll('.', '\\.').replaceAll(/\{\w+\}/g, '[^/]+')}$`);
