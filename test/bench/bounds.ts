// Figures held against bounds: said as they come, and as a table at the end.

export interface Bounds {
  judge(measured: string, figure: string, bound: string, met: boolean): void;
  /** A figure without a bound. */
  tell(measured: string, figure: string): void;
  /** Prints the table; the exit code is 1 where a bound was missed. */
  report(): void;
}

export function createBounds(): Bounds {
  const rows: string[] = [];
  let missed = 0;
  return {
    judge(measured, figure, bound, met) {
      if (!met) missed += 1;
      rows.push(`| ${measured} | ${figure} | ${bound} | ${met ? 'met' : '**missed**'} |`);
      console.log(`${met ? 'met   ' : 'MISSED'} ${measured}: ${figure} (${bound})`);
    },
    tell(measured, figure) {
      rows.push(`| ${measured} | ${figure} | | |`);
      console.log(`       ${measured}: ${figure}`);
    },
    report() {
      console.log(['', '| measured | figure | bound |  |', '|---|---|---|---|', ...rows].join('\n'));
      if (missed > 0) process.exitCode = 1;
    },
  };
}
