/** A connection URL without its password, fit for a log line: before the last @, or as a parameter. */
export function withoutPassword(url: string): string {
  return url.replace(/^([a-z+]+:\/\/[^:@/]*):.*@/i, '$1:***@').replace(/([?&][^=&]*password=)[^&]*/gi, '$1***');
}
