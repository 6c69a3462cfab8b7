// The charts: vega-lite specifications, drawn to SVG without a browser. Each is left out where its data was not measured.
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Results } from './results.ts';
import { GROUPS } from './system.ts';
import { nameOf } from './variants.ts';

export interface Chart {
  file: string;
  title: string;
}

type Row = Record<string, string | number>;
interface Drawing extends Chart {
  rows: Row[];
  spec: object;
}

const WIDTH = 560;
const CONFIG = {
  background: '#ffffff',
  padding: 12,
  font: 'system-ui, sans-serif',
  view: { stroke: null },
  axis: {
    gridColor: '#e1e0d9',
    domainColor: '#b1afa7',
    tickColor: '#b1afa7',
    labelLimit: 0,
    labelColor: '#333',
    titleColor: '#555',
  },
  range: { category: ['#2a78d6', '#e2571e', '#15905f', '#b87400', '#8f8d86'] },
  bar: { color: '#2a78d6' },
};

/** @returns those that were drawn, in the order for a page. */
export async function drawCharts(results: Results, folder: string): Promise<Chart[]> {
  await mkdir(folder, { recursive: true });
  const drawn: Chart[] = [];
  for (const drawing of drawings(results).filter(({ rows }) => rows.length > 1)) {
    await writeFile(path.join(folder, drawing.file), await toSvg(drawing));
    drawn.push({ file: drawing.file, title: drawing.title });
  }
  return drawn;
}

async function toSvg({ title, rows, spec }: Drawing): Promise<string> {
  // Not literals: these packages are only there when the benchmark's own dependencies are installed.
  const [vegaName, liteName]: string[] = ['vega', 'vega-lite'];
  const vega = (await import(vegaName as string)) as {
    View: new (runtime: unknown, options: object) => { toSVG(): Promise<string> };
    parse(spec: unknown): unknown;
  };
  const lite = (await import(liteName as string)) as { compile(spec: object): { spec: unknown } };
  const full = {
    $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
    config: CONFIG,
    data: { values: rows },
    ...spec,
  };
  const { spec: compiled } = lite.compile(full);
  const svg = await new vega.View(vega.parse(compiled), { renderer: 'none' }).toSVG();
  // As an image in a page it is read out by its title; the roles of its parts are for charts that can be clicked.
  return svg.replaceAll(/ (?:role|aria-[a-z]+)="[^"]*"/g, '').replace(/<svg[^>]*>/, `$&<title>${title}</title>`);
}

function drawings({ summaries, memory, growth, sql }: Results): Drawing[] {
  const good = summaries.filter(({ problems }) => problems.length === 0);
  const single = good.filter(
    ({ variant }) => variant.operationsPerRequest === 1 && !variant.keys && variant.hold === 'nothing',
  );
  const at64 = single
    .filter(({ variant }) => variant.connections === 64)
    .map((summary) => ({ ...summary, name: summary.name.replace(' · 64 conn.', '') }));
  const bulk = good.filter(({ variant }) => variant.operationsPerRequest > 1);
  const bars = (x: string, title: string) => ({
    width: WIDTH,
    mark: { type: 'bar', height: { band: 0.7 } },
    encoding: {
      y: { field: 'name', type: 'nominal', sort: null, title: null },
      x: { field: x, type: 'quantitative', title },
    },
  });
  const rateRows = (list: typeof good): Row[] =>
    list.flatMap(({ name, acceptedPerSecond, endToEndPerSecond }) => [
      { name, rate: acceptedPerSecond, what: 'accepted' },
      ...(endToEndPerSecond === undefined ? [] : [{ name, rate: endToEndPerSecond, what: 'in the ledger' }]),
    ]);
  const rateBars = {
    ...bars('rate', 'operations a second'),
    encoding: {
      ...bars('rate', 'operations a second').encoding,
      yOffset: { field: 'what', sort: null },
      color: { field: 'what', type: 'nominal', sort: null, title: null, legend: { orient: 'top' } },
    },
  };
  const lines = (x: string, xTitle: string, y: string, yTitle: string, color?: string, scale: object = {}) => ({
    width: WIDTH,
    height: 280,
    mark: { type: 'line', point: true, strokeWidth: 2 },
    encoding: {
      x: { field: x, type: 'quantitative', title: xTitle, scale, axis: { grid: false, format: '~s' } },
      y: { field: y, type: 'quantitative', title: yTitle, scale: { zero: true } },
      ...(color && {
        color: {
          field: color,
          type: 'nominal',
          sort: null,
          title: null,
          legend: { orient: 'top', columns: 2, labelLimit: 300 },
        },
      }),
    },
  });
  const byConnections = single
    .filter(({ variant }) => variant.accounts === 'hot' && variant.connections > 1 && variant.eventsPerMessage === 1)
    .map(({ variant, acceptedPerSecond }) => ({
      connections: variant.connections,
      name: nameOf({ ...variant, connections: 0 }).replace(' · 0 conn.', ''),
      rate: acceptedPerSecond,
    }));
  return [
    {
      file: 'accepted.svg',
      title: 'Single updates, transfers and holds, 64 connections',
      rows: rateRows(at64),
      spec: rateBars,
    },
    {
      file: 'cpu.svg',
      title: 'Where the CPU goes: seconds per 1,000 single operations',
      rows: at64.flatMap(({ name, cpu }) =>
        GROUPS.map((group, order) => ({ name, group, order, seconds: cpu[group] })),
      ),
      spec: {
        ...bars('seconds', 'CPU seconds per 1,000 operations'),
        encoding: {
          ...bars('seconds', 'CPU seconds per 1,000 operations').encoding,
          color: { field: 'group', type: 'nominal', sort: null, title: null, legend: { orient: 'top' } },
          order: { field: 'order' },
        },
      },
    },
    {
      file: 'connections.svg',
      title: 'One hot account by connections',
      rows: new Set(byConnections.map(({ connections }) => connections)).size > 1 ? byConnections : [],
      spec: lines('connections', 'connections', 'rate', 'updates a second', 'name', { type: 'log', base: 2 }),
    },
    { file: 'bulk.svg', title: 'Bulk', rows: rateRows(bulk), spec: rateBars },
    {
      file: 'memory.svg',
      title: 'Resident memory of the API, one hot account, pipeline running',
      rows: (memory?.samples ?? []).map(({ seconds, bytes }) => ({ seconds, megabytes: bytes / 2 ** 20 })),
      spec: lines('seconds', 'seconds', 'megabytes', 'MB'),
    },
    ...Object.entries(growth?.series ?? {}).map(([key, { title, points }]) => ({
      file: `growth-${key}.svg`,
      title: `Growth: ${title}`,
      rows: points.flatMap(({ at, acceptedPerSecond, endToEndPerSecond }) => [
        { at, rate: acceptedPerSecond, what: 'accepted' },
        ...(endToEndPerSecond === undefined ? [] : [{ at, rate: endToEndPerSecond, what: 'in the ledger' }]),
      ]),
      spec: lines('at', title, 'rate', 'updates a second', 'what', key.startsWith('hotShare') ? {} : { type: 'log' }),
    })),
    {
      file: 'sql.svg',
      title: 'apply_changes alone, one connection',
      rows: (sql?.rows ?? []).map(({ batch, accounts, keys, updatesPerSecond }) => ({
        batch,
        rate: updatesPerSecond,
        name: `${accounts}${keys ? ', keys' : ''}`,
      })),
      spec: lines('batch', 'updates in a batch', 'rate', 'updates a second', 'name', { type: 'log', base: 2 }),
    },
  ];
}
