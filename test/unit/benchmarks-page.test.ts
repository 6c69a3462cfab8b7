// docs/benchmarks.md is written by npm run bench, which keeps what other commands measured.
import { expect, it } from 'vitest';
import { withOthers } from '../bench/report.ts';

const OTHERS = '## Measured by other commands\n\n### Overload\n\nbounded\n';

it('keeps the figures of other commands when the page is written again', () => {
  expect(withOthers('# New\n', `# Old\n\n${OTHERS}`)).toBe(`# New\n\n${OTHERS}`);
});

it('is the new page alone where there are none', () => {
  expect(withOthers('# New\n', '# Old\n')).toBe('# New\n');
  expect(withOthers('# New\n', '')).toBe('# New\n');
});
