// What the load test runs against and how hard: from the environment, else the running `npm start`
// of this clone.

import { SetupProblem } from '../../src/local/setup-problem.ts';
import { readRuntime } from '../../src/shared/runtime.ts';

/** Taken off by each request. The account opens with half of what all of them together take. */
export const DEBIT = 2;

export interface LoadSettings {
  url: string;
  databaseUrl: string;
  /** API key with the scopes `read`, `write` and `admin`, where the API wants one. */
  token: string | undefined;
  ratePerSecond: number;
  durationS: number;
  /** That artillery will send. */
  requests: number;
  /** Of them: 200. */
  accepted: number;
  /** Of them: 400. */
  declined: number;
}

/** @throws SetupProblem with a sentence about the first setting that is missing or wrong. */
export function readLoadSettings(env: NodeJS.ProcessEnv): LoadSettings {
  const runtime = readRuntime();
  const url = new URL(checkUrl('BASE_URL', env.BASE_URL || runtime?.url || 'http://localhost:3000', /^https?:$/));
  // The database of `npm start` belongs to its own API only.
  const isOfRuntime = runtime !== undefined && new URL(runtime.url).origin === url.origin;
  const databaseUrl = env.DATABASE_URL || (isOfRuntime ? runtime.databaseUrl : undefined);
  if (!databaseUrl) {
    if (!env.BASE_URL && runtime === undefined) throw new SetupProblem('Nothing is running here: npm start.');
    throw new SetupProblem(
      `DATABASE_URL is not set: give the PostgreSQL URL of the system at ${url.origin}, such as postgres://user:password@localhost:5432/balance.`,
    );
  }
  const ratePerSecond = checkWhole('RATE', env.RATE, 1000, 10_000);
  const durationS = checkWhole('DURATION_S', env.DURATION_S, 10, 600);
  // artillery's own arithmetic: it counts in whole microseconds between two requests, so 300 a
  // second are 300.03.
  const requests = Math.floor((durationS * 1_000_000) / Math.floor(1_000_000 / ratePerSecond));
  const accepted = Math.floor(requests / 2);
  return {
    url: url.origin,
    databaseUrl: checkUrl('DATABASE_URL', databaseUrl, /^postgres(ql)?:$/),
    token: checkToken(env.BALANCE_TOKEN),
    ratePerSecond,
    durationS,
    requests,
    accepted,
    declined: requests - accepted,
  };
}

function checkUrl(name: string, value: string, protocol: RegExp): string {
  if (URL.canParse(value) && protocol.test(new URL(value).protocol)) return value;
  throw new SetupProblem(
    `${name} must be a URL, starting with ${name === 'BASE_URL' ? 'http:// or https://' : 'postgres://'}.`,
  );
}

/** Not shown in the sentence: it is a secret. */
function checkToken(value: string | undefined): string | undefined {
  if (!value || /^[\x21-\x7e]+$/.test(value)) return value || undefined;
  throw new SetupProblem('BALANCE_TOKEN must be an API key: printable ASCII without spaces.');
}

function checkWhole(name: string, value: string | undefined, fallback: number, max: number): number {
  if (!value) return fallback;
  if (/^[1-9]\d*$/.test(value) && Number(value) <= max) return Number(value);
  throw new SetupProblem(`${name} must be a whole number from 1 to ${max}.`);
}
