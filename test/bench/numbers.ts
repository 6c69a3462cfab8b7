// Percentiles, medians, and numbers for people.

/** The smallest value that at least `percent` of the values do not exceed; NaN of none. */
export function percentile(values: readonly number[], percent: number): number {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)] ?? Number.NaN;
}

/** NaN of none. */
export function median(values: readonly number[]): number {
  const sorted = Float64Array.from(values).sort();
  const middle = (sorted.length - 1) / 2;
  return ((sorted[Math.floor(middle)] ?? Number.NaN) + (sorted[Math.ceil(middle)] ?? Number.NaN)) / 2;
}

export const whole = (value: number) => Math.round(value).toLocaleString('en');

/** Three digits or so: 0.87, 12.3, 456. */
export const short = (value: number) => value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);
