// The accounts of a load: who gets the updates, or pays and is paid, as a file of ids that the load generator goes through.
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Variant } from './variants.ts';

export const EVEN_ACCOUNTS = 10_000;
export const HOT_ACCOUNT = 'hot';
export const accountId = (index: number) => `a${index}`;

/** Enough that each of a million accounts has a chance, and Zipf its tail. */
const DRAWN = 262_144;

/** The same every time. https://en.wikipedia.org/wiki/Linear_congruential_generator, as in POSIX drand48 */
function drawer(): () => number {
  let state = 20_251_123n;
  return () => {
    state = (state * 25_214_903_917n + 11n) & ((1n << 48n) - 1n);
    return Number(state) / 2 ** 48;
  };
}

/** A line is an account, or the one that pays and the one that is paid. @returns the file's path. */
export function writeAccountsFile(folder: string, variant: Variant): string {
  const { operation, accounts, hotShare, extraAccounts } = variant;
  const file = path.join(folder, `accounts-${operation}-${accounts}-${hotShare ?? ''}-${extraAccounts}`);
  writeFileSync(file, `${draw(variant).join('\n')}\n`);
  return file;
}

function draw({ operation, accounts, hotShare, extraAccounts }: Variant): string[] {
  const random = drawer();
  const count = extraAccounts || EVEN_ACCOUNTS;
  const even = () => accountId(Math.floor(random() * count));
  const isTransfer = operation === 'transfer' || operation === 'payout';
  if (isTransfer) {
    return Array.from({ length: DRAWN }, () => {
      const one = even();
      const other = accounts === 'hot' ? HOT_ACCOUNT : even();
      return operation === 'payout' ? `${other} ${one}` : `${one} ${other}`;
    }).filter((pair) => new Set(pair.split(' ')).size === 2);
  }
  if (hotShare !== undefined) {
    return Array.from({ length: DRAWN }, () => (random() < hotShare ? HOT_ACCOUNT : even()));
  }
  if (accounts === 'hot') return [HOT_ACCOUNT];
  if (accounts === 'even') return Array.from({ length: DRAWN }, even);
  return zipf(random, count);
}

/** Exponent 1: the second account gets half of what the first does, the third a third. */
function zipf(random: () => number, count: number): string[] {
  let total = 0;
  const upTo = Float64Array.from({ length: count }, (_, index) => (total += 1 / (index + 1)));
  return Array.from({ length: DRAWN }, () => {
    const wanted = random() * total;
    let low = 0;
    let high = count - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((upTo[middle] as number) < wanted) low = middle + 1;
      else high = middle;
    }
    return accountId(low);
  });
}
