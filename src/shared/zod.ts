// zod with our own messages: one sentence that says what the value must be, worded to follow its
// name. All other files import zod from this one, and a test holds that
// (test/unit/findings.test.ts), so none of zod's own sentences reaches anyone. A schema with a
// sentence of its own comes first: it knows the reason.
import { z } from 'zod';

type Finding = z.core.$ZodRawIssue;

const TYPES: Readonly<Record<string, string>> = {
  string: 'must be text',
  number: 'must be a number',
  int: 'must be a whole number',
  boolean: 'must be true or false',
  object: 'must be an object',
  record: 'must be an object',
  array: 'must be a list',
  null: 'must be null',
};

const NUMBERS: ReadonlySet<string> = new Set(['number', 'int']);

const FORMATS: Readonly<Record<string, string>> = {
  datetime: 'must be a time such as 2026-11-23T19:43:56.550Z',
  url: 'must be a URL',
};

/** What to change, for each kind of finding. @param finding not worded yet, except those inside of it. */
export function sentenceOf(finding: Finding): string {
  switch (finding.code) {
    case 'invalid_type':
      if (finding.input === undefined) return 'is required';
      if (typeof finding.input === 'string' && NUMBERS.has(finding.expected)) return 'must be a number without quotes';
      return TYPES[finding.expected] ?? `must be a ${finding.expected}`;
    case 'invalid_value':
      return `must be ${finding.values.length > 1 ? 'one of ' : ''}${finding.values.join(', ')}`;
    case 'too_small':
      return atBound(finding.origin, finding.inclusive === false ? 'above' : 'at least', finding.minimum);
    case 'too_big':
      return atBound(finding.origin, finding.inclusive === false ? 'below' : 'at most', finding.maximum);
    case 'not_multiple_of':
      return `must be a multiple of ${finding.divisor}`;
    case 'invalid_format':
      return FORMATS[finding.format] ?? `must be of the form ${finding.pattern ?? finding.format}`;
    case 'unrecognized_keys':
      return `has unknown members, leave them out: ${finding.keys.join(', ')}`;
    case 'invalid_key':
    case 'invalid_element':
      return finding.issues[0]?.message ?? 'has a member name that is not allowed';
    case 'invalid_union':
      return finding.errors?.[0]?.[0]?.message ?? 'has none of the accepted forms';
    default:
      return 'is not allowed here';
  }
}

function atBound(origin: string, side: string, bound: number | bigint): string {
  if (origin === 'string') return `must have ${side} ${bound} characters`;
  return origin === 'array' ? `must hold ${side} ${bound}` : `must be ${side} ${bound}`;
}

/** More would not help to see what is wrong with the whole. */
const FINDINGS_MAX = 5;

/** What is wrong with a value as a whole, in one line: each place with its sentence. The first few. */
export function findings({ issues }: z.ZodError): string {
  const shown = issues
    .slice(0, FINDINGS_MAX)
    .map(({ path, message }) => [path.join('.'), message].filter(Boolean).join(' '));
  return shown.join('; ');
}

z.config({ localeError: sentenceOf });

export { z };
