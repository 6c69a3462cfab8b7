// Several hosts in one URL, as libpq and some clients of RabbitMQ take them: `postgres://h1:5432,h2:5432/db`.

/** Nothing that a password could contain: passwords may have commas. */
const HOST = String.raw`([\w.-]*|\[[\da-f:.]+\]|%2f[\w.%-]*)(:\d*)?`;
const HOST_LIST = new RegExp(`^[a-z]+://([^/?#]*@)?${HOST}(,${HOST})+([/?#]|$)`, 'i');

/** Whether the part of a URL that names the host names more than one. */
export function hasHostList(url: string): boolean {
  return HOST_LIST.test(url);
}
