// What a tool found, and how bad it is. Above `information` the run fails.
export const LEVELS = ['information', 'low', 'medium', 'high'] as const;
export type Level = (typeof LEVELS)[number];

export interface Finding {
  level: Level;
  what: string;
}

/** As many as help; the rest is only counted. */
const KINDS_MAX = 20;

/** The same words only once, with how often. */
export function summed(findings: readonly Finding[]): string[] {
  const kinds = Map.groupBy(findings, ({ level, what }) => `${level}: ${what}`);
  const lines = [...kinds].map(([text, same]) => (same.length === 1 ? text : `${text} (${same.length} times)`));
  return lines.length <= KINDS_MAX ? lines : [...lines.slice(0, KINDS_MAX), `and ${lines.length - KINDS_MAX} more`];
}
