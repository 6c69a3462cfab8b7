// With AUTH=off the network decides who may call: this machine alone. A browser on it runs pages of anyone, which may
// send requests too. They cannot read an answer, but whether one came, how large and how soon, can be found out from outside:
// https://xsleaks.dev. So requests that such a page makes are refused before anything is looked up.
import type { IncomingMessage } from 'node:http';

/** Made by a page of the service itself, or by a person: an address that was typed, a bookmark. */
const OWN_SITES: ReadonlySet<string> = new Set(['same-origin', 'none']);

/** Whether a web page of another origin makes this request. */
export function isOfOtherOrigin({ headers }: IncomingMessage): boolean {
  const site = headers['sec-fetch-site'];
  // Sent by browsers since 2023, with every request to this machine, and no script can change it. `same-site` is another port.
  if (site !== undefined) return !OWN_SITES.has(String(site));
  // Older ones name the origin of what may change something.
  const { origin, host = '' } = headers;
  return origin !== undefined && origin.replace(/^https?:\/\//, '') !== host;
}

/** Whether it opens a whole window, as a link does: no other page can look into that. */
export function opensWindow({ headers }: IncomingMessage): boolean {
  return headers['sec-fetch-mode'] === 'navigate' && headers['sec-fetch-dest'] === 'document';
}
