// The headers of every HTTP answer, whatever its status and source: a web page of another origin
// can neither show nor embed it, and no cache keeps it. src/api/access/own-origin.ts decides what
// such a page may request at all.

export const ANSWER_HEADERS: Readonly<Record<string, string>> = {
  // A balance must not be found in a cache, nor be inferred from the speed of a cached answer.
  'cache-control': 'no-store',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'x-content-type-options': 'nosniff',
};

const PAIRS = Object.entries(ANSWER_HEADERS);

export function setAnswerHeaders(response: { setHeader(name: string, value: string): unknown }): void {
  for (const [name, value] of PAIRS) response.setHeader(name, value);
}
