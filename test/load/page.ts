// The result as a table of lines and as a web page that needs nothing but itself: it can be mailed
// or kept with a build.
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import type { Verification } from '../../src/shared/verification.ts';
import type { Latency, Slice } from './measurements.ts';
import type { LedgerLag } from './system.ts';

export interface LoadResult {
  startedAt: string;
  url: string;
  accountId: string;
  ratePerSecond: number;
  durationS: number;
  sentPerSecond: number;
  /** Requests by status code or error. */
  outcomes: Record<string, number>;
  /**
   * From when a request was due until its whole answer was there; a wait for a free connection
   * counts.
   */
  latency: Latency | undefined;
  generatorPauseMs: number;
  ledgerLag: LedgerLag;
  verification: Verification;
  /** What artillery says about the conditions of the scenario. */
  conditions: string[];
  /** Why it did not pass; none, it passed. */
  problems: string[];
  sliceMs: number;
  slices: Slice[];
}

const ms = (value: number | undefined) =>
  value === undefined ? '-' : `${value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString('en')} ms`;
const count = (value: number) => Math.round(value).toLocaleString('en');

/** Names and values, for people. */
export function summaryRows(result: LoadResult): [name: string, value: string][] {
  const { latency, ledgerLag, verification } = result;
  return [
    ...Object.entries(result.outcomes).map(([outcome, n]): [string, string] => [outcomeName(outcome), count(n)]),
    ['sent', `${count(result.sentPerSecond)}/s`],
    ['latency mean', ms(latency?.meanMs)],
    ['latency p50', ms(latency?.p50Ms)],
    ['latency p95', ms(latency?.p95Ms)],
    ['latency p99', ms(latency?.p99Ms)],
    ['latency max', ms(latency?.maxMs)],
    ['generator paused, max', result.generatorPauseMs === 0 ? 'under 30 ms' : ms(result.generatorPauseMs)],
    ['ledger lag p50', ms(ledgerLag.p50Ms)],
    ['ledger lag max', ms(ledgerLag.maxMs)],
    ['ledger drained after', ms(ledgerLag.lastMs)],
    [
      'verify',
      verification.offendingAccounts === 0
        ? `${count(verification.accounts)} accounts, ${count(verification.ledgerEntries)} entries: all add up`
        : `${count(verification.offendingAccounts)} accounts do NOT add up`,
    ],
  ];
}

/** The page, complete: no other file, no other host. */
export async function renderPage(result: LoadResult): Promise<string> {
  const uplot = path.dirname(createRequire(import.meta.url).resolve('uplot/package.json'));
  const [library, libraryStyle] = await Promise.all(
    ['uPlot.iife.min.js', 'uPlot.min.css'].map((file) => readFile(path.join(uplot, 'dist', file), 'utf8')),
  );
  const outcomes = Object.keys(result.outcomes);
  const passed = result.problems.length === 0;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Load test ${escapeHtml(result.startedAt)}</title>
<style>${libraryStyle}${STYLE}</style>
</head>
<body>
<main>
<header>
<h1>Load test <span class="${passed ? 'good' : 'bad'}">${passed ? 'passed' : 'not passed'}</span></h1>
<p>One account, one debit a request, ${count(result.ratePerSecond)} requests a second for ${result.durationS} s ·
<time datetime="${escapeHtml(result.startedAt)}">${escapeHtml(result.startedAt.replace('T', ' ').slice(0, 19))} UTC</time> · ${escapeHtml(result.url)}</p>
${result.problems.map((problem) => `<p class="bad">${escapeHtml(problem)}</p>`).join('\n')}
</header>
<section>
<h2>Latency</h2>
<p>From when a request was due until its whole answer was there, in milliseconds, on a logarithmic scale.
Each point stands for the requests of ${result.sliceMs} ms.</p>
<div id="latency" class="chart"></div>
</section>
<section>
<h2>Answers</h2>
<p>Answers a second by status code: accepted (200) until the account is empty, then declined (400).</p>
<div id="outcomes" class="chart"></div>
</section>
<section>
<h2>Numbers</h2>
<table class="summary"><tbody>
${summaryRows(result)
  .map(([name, value]) => `<tr><th scope="row">${escapeHtml(name)}</th><td>${escapeHtml(value)}</td></tr>`)
  .join('\n')}
</tbody></table>
<p>Ledger lag: from a change's acceptance to its entry in the audit ledger; drained after: that of the last change. While
the load generator pauses, answers wait for it, so latencies up to its longest pause may be its own.</p>
<h3>Conditions</h3>
<ul>${result.conditions.map(conditionItem).join('\n')}</ul>
<details>
<summary>The curves as a table</summary>
<div class="wide">${sliceTable(result, outcomes)}</div>
</details>
<p>Raw data beside this page: <a href="result.json">result.json</a>, <a href="requests.csv">requests.csv</a> (when due,
latency, outcome), <a href="artillery.json">artillery.json</a>.</p>
</section>
</main>
<script>${library}</script>
<script type="module">
const result = ${JSON.stringify(result).replaceAll('<', '\\u003c')};
const outcomes = ${JSON.stringify(outcomes).replaceAll('<', '\\u003c')};
const names = ${JSON.stringify(Object.fromEntries(outcomes.map((key) => [key, outcomeName(key)]))).replaceAll('<', '\\u003c')};
${SCRIPT}
</script>
</body>
</html>
`;
}

function sliceTable({ slices }: LoadResult, outcomes: string[]): string {
  const number = (value: number | undefined) => `<td>${value === undefined ? '' : value.toFixed(1)}</td>`;
  const rows = slices.map(
    ({ fromS, latency, outcomesPerSecond }) =>
      `<tr><th scope="row">${fromS.toFixed(2)}</th>${number(latency?.p50Ms)}${number(latency?.p95Ms)}${number(latency?.p99Ms)}` +
      `${number(latency?.maxMs)}${outcomes.map((outcome) => `<td>${count(outcomesPerSecond[outcome] ?? 0)}</td>`).join('')}</tr>`,
  );
  const heads = [
    'from, s',
    'p50, ms',
    'p95, ms',
    'p99, ms',
    'max, ms',
    ...outcomes.map((key) => `${outcomeName(key)}, /s`),
  ];
  return `<table><thead><tr>${heads.map((head) => `<th scope="col">${escapeHtml(head)}</th>`).join('')}</tr></thead><tbody>${rows.join('\n')}</tbody></table>`;
}

function conditionItem(line: string): string {
  const isOptional = line.endsWith('(optional)');
  return `<li class="${line.startsWith('ok') ? 'good' : isOptional ? 'missed' : 'bad'}">${escapeHtml(line)}</li>`;
}

function outcomeName(outcome: string): string {
  if (outcome === '200') return '200 accepted';
  return outcome === '400' ? '400 declined' : outcome;
}

function escapeHtml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}

const STYLE = `
:root { color-scheme: light dark; --page: #fcfcfb; --ink: #1a1a19; --soft: #5f5e5a; --line: #e1e0d9;
  --blue: #2a78d6; --aqua: #15905f; --amber: #b87400; --grey: #8f8d86; --orange: #e2571e; --red: #d03b3b; --green: #0f7b3f; }
@media (prefers-color-scheme: dark) { :root { --page: #1a1a19; --ink: #f4f3ef; --soft: #b1afa7; --line: #3a3a37;
  --blue: #5b9df0; --aqua: #2cc08a; --amber: #e3a72f; --grey: #84827b; --orange: #f2865a; --red: #f07070; --green: #4cc47f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem 1rem 3rem; }
h1 { font-size: 1.6rem; margin: .5rem 0 0; } h2 { font-size: 1.2rem; margin: 2rem 0 0; } h3 { font-size: 1rem; margin: 1.5rem 0 0; }
p { margin: .25rem 0 .75rem; color: var(--soft); } p.bad { color: var(--red); }
a { color: var(--blue); }
h1 span { font-size: 1rem; padding: .1rem .6rem; border-radius: 1rem; border: 1px solid; vertical-align: middle; margin-left: .5rem; }
.good { color: var(--green); } .bad { color: var(--red); } .missed { color: var(--soft); }
.chart { width: 100%; min-height: 300px; }
.u-legend { font-size: .85rem; text-align: left; color: var(--ink); } .u-legend .u-marker { border-radius: 2px; }
.u-legend .u-value { display: inline-block; min-width: 4.5rem; font-variant-numeric: tabular-nums; color: var(--soft); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.summary { width: 100%; max-width: 36rem; } .summary th { width: 50%; } .summary + p { margin-top: .75rem; }
main table:not(.u-legend) :is(th, td) { padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); text-align: right; font-weight: 400; }
main table:not(.u-legend) tbody th, main table:not(.u-legend) th:first-child { text-align: left; color: var(--soft); }
.wide { overflow-x: auto; } .wide th, .wide td { white-space: nowrap; }
ul { list-style: none; padding: 0; margin: .25rem 0 1rem; font: .9rem/1.6 ui-monospace, monospace; overflow-wrap: anywhere; }
summary { cursor: pointer; margin: 1rem 0; }
`;

// Runs in the browser.
const SCRIPT = `
const seconds = result.slices.map((slice) => slice.fromS);
const latency = (key) => result.slices.map((slice) => (slice.latency ? slice.latency[key] : null));
const fixed = (value) => (value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString('en'));
let charts = [];

function draw() {
  for (const chart of charts) chart.destroy();
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue('--' + name).trim();
  const axis = { stroke: color('soft'), grid: { stroke: color('line'), width: 1 }, ticks: { stroke: color('line'), width: 1 },
    font: '12px system-ui, sans-serif', labelFont: '12px system-ui, sans-serif', labelSize: 18 };
  const line = (label, name, unit, more) => ({ label, stroke: color(name), width: 2, points: { show: false }, value: (_, v) => (v === null || v === undefined ? '–' : fixed(v) + ' ' + unit), ...more });
  const x = { label: 'time', value: (_, v) => (v === null || v === undefined ? '–' : v.toFixed(2) + ' s') };
  const chart = (id, options, data) => {
    const place = document.getElementById(id);
    charts.push(new uPlot({ width: place.clientWidth, height: 280, ms: 1e-3, cursor: { drag: { setScale: false }, points: { size: 7 }, sync: { key: 'time' } },
      legend: { markers: { width: 0, fill: (self, index) => self.series[index].stroke(self, index) } }, ...options }, data, place));
  };
  const xAxis = { ...axis, label: 'seconds since the first request', size: 30 };
  chart('latency', {
    scales: { x: { time: false }, y: { distr: 3 } },
    series: [x, line('max', 'grey', 'ms', { width: 1 }), line('p99', 'amber', 'ms'), line('p95', 'aqua', 'ms'), line('p50', 'blue', 'ms')],
    axes: [xAxis, { ...axis, label: 'ms', size: 56, values: (_, ticks) => ticks.map((v) => (v === null ? '' : String(v))) }],
  }, [seconds, latency('maxMs'), latency('p99Ms'), latency('p95Ms'), latency('p50Ms')]);
  const stroke = (outcome) => (outcome === '200' ? 'blue' : outcome === '400' ? 'orange' : 'red');
  chart('outcomes', {
    scales: { x: { time: false }, y: { range: (_, min, max) => [0, Math.max(10, max * 1.1)] } },
    series: [x, ...outcomes.map((outcome) => line(names[outcome], stroke(outcome), '/s', { fill: color(stroke(outcome)) + '26', paths: uPlot.paths.stepped({ align: 1 }) }))],
    axes: [xAxis, { ...axis, label: 'answers a second', size: 56, values: (_, ticks) => ticks.map((v) => v.toLocaleString('en')) }],
  }, [seconds, ...outcomes.map((outcome) => result.slices.map((slice) => slice.outcomesPerSecond[outcome] ?? 0))]);
}

draw();
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => { charts.splice(0).forEach((c) => c.destroy()); draw(); });
new ResizeObserver(() => {
  for (const chart of charts) chart.setSize({ width: chart.root.parentElement.clientWidth, height: 280 });
}).observe(document.querySelector('main'));
`;
