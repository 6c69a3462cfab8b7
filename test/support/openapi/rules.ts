// Spectral with the rules of OpenAPI and of OWASP's API security list, and the few of their
// findings that are excused, each with the reason.
import { UNCOUNTED } from '../../../src/api/reference/responses.ts';
import { load } from './tools.ts';

interface Excuse {
  rule: string;
  /** Places in the document, as JSON pointers. */
  where: RegExp;
  reason: string;
}

export const EXCUSES: readonly Excuse[] = [
  {
    rule: 'owasp:api8:2023-define-cors-origin',
    where: /\/headers$/,
    reason:
      'No page of another origin may call this service, and without the header browsers let none. Its callers are services.',
  },
  {
    rule: 'owasp:api4:2023-rate-limit',
    where: new RegExp(`/responses/(${[...UNCOUNTED].join('|')})(/headers)?$`),
    reason: 'Refused before the request is counted for a key, or before it was read: there is no limit to report.',
  },
  {
    rule: 'owasp:api4:2023-string-limit',
    where: /\/entries\/export\/get\/responses\/200\/content\/(text\/csv.*|application\/jsonl)\/schema$/,
    reason: 'A file that is streamed, as long as the history is.',
  },
  {
    rule: 'owasp:api4:2023-string-restricted',
    where: /\/entries\/export\/get\/responses\/200\/content\/(text\/csv.*|application\/jsonl)\/schema$/,
    reason: 'A file: its form is its media type.',
  },
];

export interface Finding {
  rule: string;
  where: string;
  message: string;
}

interface Spectral {
  setRuleset(ruleset: object): void;
  run(document: object): Promise<{ code: string; path: (string | number)[]; message: string }[]>;
}

/** Whatever the severity. `used` are the excuses that something needed. */
export async function lint(document: object): Promise<{ findings: Finding[]; used: Set<Excuse> }> {
  const core = load<{ Spectral: new () => Spectral; Document: new (...it: unknown[]) => object }>(
    '@stoplight/spectral-core',
  );
  const { Json } = load<{ Json: object }>('@stoplight/spectral-parsers');
  const { oas } = load<{ oas: object }>('@stoplight/spectral-rulesets');
  const spectral = new core.Spectral();
  spectral.setRuleset({ extends: [oas, load('@stoplight/spectral-owasp-ruleset')] });
  const results = await spectral.run(new core.Document(JSON.stringify(document), Json, 'openapi.json'));
  const used = new Set<Excuse>();
  const findings = results
    .map(({ code, path, message }) => ({ rule: code, where: `/${path.join('/')}`, message }))
    .filter(({ rule, where }) => {
      const excuse = EXCUSES.find((one) => one.rule === rule && one.where.test(where));
      if (excuse) used.add(excuse);
      return excuse === undefined;
    });
  return { findings, used };
}
