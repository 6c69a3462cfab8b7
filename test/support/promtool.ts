// What Prometheus makes of metrics that were really exposed: two looks at the processes, before and
// after something went wrong, become time series, and promtool evaluates the alert rules over them.
// Ten minutes of calm, then twenty of trouble.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const STEP_S = 30;
const CALM_STEPS = 20;
const TROUBLE_STEPS = 40;

export interface Scrape {
  /** Values by name and labels, job and instance included. `up` is among them. */
  values: ReadonlyMap<string, number>;
  /** Names of those that only grow. */
  counters: ReadonlySet<string>;
}

export const hasPromtool = spawnSync('promtool', ['--version']).status === 0;

export function promtool(command: readonly string[], input = ''): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync('promtool', command, { encoding: 'utf8', input });
  return { status, output: stdout + stderr };
}

/** As Prometheus does it. @param targets base URLs by job. */
export async function scrape(targets: Record<string, string>): Promise<Scrape> {
  const values = new Map<string, number>();
  const counters = new Set<string>();
  for (const [job, url] of Object.entries(targets)) {
    const own = `job="${job}",instance="${new URL(url).host}"`;
    const text = await fetch(`${url}/metrics`).then(
      (response) => (response.ok ? response.text() : undefined),
      () => undefined,
    );
    values.set(`up{${own}}`, Number(text !== undefined));
    for (const line of (text ?? '').split('\n')) {
      const [, family, type] = /^# TYPE (\w+) (\w+)/.exec(line) ?? [];
      if (family && type === 'counter') counters.add(family);
      if (family && type === 'histogram')
        for (const end of ['bucket', 'sum', 'count']) counters.add(`${family}_${end}`);
      const [, name, labels, value] = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
      if (name) values.set(`${name}{${labels ? `${labels},` : ''}${own}}`, Number(value));
    }
  }
  return { values, counters };
}

export interface Trouble {
  before: Scrape;
  after: Scrape;
  /** What was counted between the two happens again and again; otherwise it happened once. */
  goesOn: boolean;
}

/** The alerts that fire in the calm and in the trouble. @throws where promtool does not take the rules. */
export function firing(
  rules: string,
  alerts: readonly string[],
  trouble: Trouble,
): { calm: string[]; trouble: string[] } {
  const folder = mkdtempSync(path.join(tmpdir(), 'highload-balance-alerts-'));
  try {
    return {
      calm: alerts.filter((alert) => fires(folder, rules, alert, trouble, CALM_STEPS - 1)),
      trouble: alerts.filter((alert) => fires(folder, rules, alert, trouble, undefined)),
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** promtool only compares: each question is a comparison that holds or fails. */
function fires(folder: string, rules: string, alert: string, trouble: Trouble, step: number | undefined): boolean {
  const steps =
    step === undefined ? Array.from({ length: TROUBLE_STEPS }, (_, index) => CALM_STEPS + index + 1) : [step];
  // Once is enough: what happened once is over when it has left the window of the rule.
  const atSeconds = Math.max(...steps) * STEP_S;
  const spanSeconds = (steps.length - 1) * STEP_S + 1;
  const expr = `max(max_over_time(ALERTS{alertname="${alert}",alertstate="firing"}[${spanSeconds}s]))`;
  const file = path.join(folder, 'test.json');
  writeFileSync(
    file,
    JSON.stringify({
      rule_files: [rules],
      evaluation_interval: `${STEP_S}s`,
      tests: [
        {
          interval: `${STEP_S}s`,
          input_series: seriesOf(trouble, readFileSync(rules, 'utf8')),
          promql_expr_test: [{ expr, eval_time: `${atSeconds}s`, exp_samples: [{ labels: '{}', value: 1 }] }],
        },
      ],
    }),
  );
  const { status, output } = promtool(['test', 'rules', file]);
  if (status === 0) return true;
  if (/got:\s*nil/.test(output)) return false;
  throw new Error(output);
}

/** Of the metrics that the rules ask for. */
function seriesOf({ before, after, goesOn }: Trouble, rules: string): { series: string; values: string }[] {
  const names = new Set([...before.values.keys(), ...after.values.keys()]);
  return [...names].flatMap((series) => {
    if (!rules.includes(nameOf(series))) return [];
    const [first, then] = [before.values.get(series), after.values.get(series)];
    if (![first, then].every((value) => value === undefined || Number.isFinite(value))) return [];
    const isCounter = after.counters.has(nameOf(series));
    const grows = isCounter && goesOn && then !== undefined ? then - (first ?? 0) : 0;
    const calm = first === undefined ? `_x${CALM_STEPS}` : `${plain(first)}+0x${CALM_STEPS}`;
    const trouble = then === undefined ? 'stale' : `${plain(then)}+${plain(grows)}x${TROUBLE_STEPS}`;
    return [{ series, values: `${calm} ${trouble}` }];
  });
}

const nameOf = (series: string) => series.slice(0, series.indexOf('{'));

/** Without an exponent, which promtool does not read. */
function plain(value: number): string {
  return value.toFixed(9).replace(/\.?0+$/, '');
}
