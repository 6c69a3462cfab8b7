// The CSV form of an export in spreadsheets: whatever clients write into a text, and whatever the
// separator is in the locale where the file is opened, no cell of it is a formula.
import { describe, expect, it } from 'vitest';
import { exportForms } from '../../src/api/calls/entries-export.ts';
import { makeChange } from '../support/harness.ts';

const FORMULAS = ['=1+1', '+1', '-1', '@SUM(1)', '＝1', '＋1', '－1', '＠1'];
const SEPARATORS = [',', ';', '|', '\t', '؛', '،', '、', '，', '；'];
const IN_A_TEXT = SEPARATORS.filter((separator) => separator !== '\t'); // references have no control characters

function lineOf(given: { reference?: string; metadata?: string; holdId?: string; amount?: number }): string {
  const change = makeChange({ accountId: 'alice', version: 7, balance: -12, ...given });
  return exportForms.csv.line({ ...change, recordedAt: change.createdAt });
}

/**
 * As spreadsheets read a line: a quote counts at the beginning of a cell alone, and what follows
 * the second is taken as it is.
 */
function cellsOf(line: string, separator: string): string[] {
  const cells: string[] = [];
  for (let rest = line.replace(/\r\n$/, ''); ; ) {
    const quoted = /^"((?:[^"]|"")*)"/.exec(rest);
    const end = rest.indexOf(separator, quoted?.[0].length ?? 0);
    const plain = rest.slice(quoted?.[0].length ?? 0, end === -1 ? undefined : end);
    cells.push((quoted?.[1]?.replaceAll('""', '"') ?? '') + plain);
    if (end === -1) return cells;
    rest = rest.slice(end + separator.length);
  }
}

const isFormula = (cell: string) => /^[\s"]*[=+@＝＋－＠-]/.test(cell) && !/^-\d+$/.test(cell);

const hidden = FORMULAS.flatMap((formula) => [
  formula,
  ` ${formula}`,
  `"${formula}`,
  ...IN_A_TEXT.flatMap((separator) => [
    `x${separator}${formula}`,
    `x${separator} ${formula}`,
    `x${separator}"${formula}"`,
    `x${separator}${formula}${separator}${formula}`,
  ]),
]);

/** Quotes counted as above, and not at all. */
const formulasIn = (line: string, separator: string) =>
  [...cellsOf(line, separator), ...line.split(separator)].filter(isFormula);

describe.each(SEPARATORS)('opened with the separator %j', (separator) => {
  it('has no formula in a reference, and nothing of it changed but an apostrophe more', () => {
    for (const reference of hidden) {
      const line = lineOf({ reference });
      expect(formulasIn(line, separator), reference).toEqual([]);
      expect(cellsOf(line, ',')[12]?.replaceAll("'", '')).toBe(reference);
    }
  });

  it('has no formula in metadata, which stays the same', () => {
    for (const value of hidden) {
      const metadata = JSON.stringify({ '-a': value, b: value, '.c': `${value}\\\n\t"` });
      const line = lineOf({ metadata });
      expect(formulasIn(line, separator), value).toEqual([]);
      expect(JSON.parse(cellsOf(line, ',')[14] as string)).toEqual(JSON.parse(metadata));
    }
  });
});

it('leaves numbers and harmless text as they are', () => {
  const reference = 'order 1001 - 5%; a=b, a+b@c.example|x';
  const cells = cellsOf(lineOf({ reference, amount: -5, metadata: '{"a":"b","c":"d = e"}' }), ',');
  expect([cells[6], cells[8], cells[12], cells[14]]).toEqual(['-5', '-12', reference, '{"a":"b","c":"d = e"}']);
});

it('shows an id that begins like a formula as text', () => {
  expect(cellsOf(lineOf({ holdId: '-h' }), ',')[17]).toBe("'-h");
});
