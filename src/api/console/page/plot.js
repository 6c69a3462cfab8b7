// Plots in the colours of the page, as wide as their place, with a legend that shows values: those
// under the pointer, else the last ones.
import { measure, moment } from './show.js';
// @ts-expect-error: a file of the package uplot, whose types are below
import bundled from './uplot.js';

/** @type {typeof import('uplot')} */
const uPlot = bundled;

const HEIGHT_PX = 150;

/**
 * @typedef {object} Series
 * @property {string} label
 * @property {string} colour a name among the colours of the page
 * @property {boolean} [fill]
 * @property {boolean} [stepped]
 * @property {boolean} [quiet] no line where it stays 0: a line says that something happens
 */

/** @typedef {(number | null)[][]} Data seconds since 1970, then a list for each series */

/**
 * @param {HTMLElement} place
 * @param {{ series: Series[], seconds?: number, sync?: string }} options
 *   seconds: what is shown at least, up to the last value. sync: plots with the same one have one pointer
 * @returns {{ show(data: Data): void }}
 */
export function createPlot(place, { series, seconds, sync }) {
  const legend = createLegend(place, series);
  /** @type {import('uplot') | undefined} */
  let plot;
  /** @type {Data} */
  let shown = [[], ...series.map(() => [])];
  const drawn = () =>
    /** @type {import('uplot').AlignedData} */ ([
      shown[0],
      ...series.map(({ quiet }, index) => (quiet ? withoutRest(shown[index + 1] ?? []) : shown[index + 1])),
    ]);

  /** @param {number | null | undefined} index */
  const showLegend = (index) => legend.show(shown, index);

  function draw() {
    plot?.destroy();
    const options = {
      width: widthOf(place),
      height: HEIGHT_PX,
      legend: { show: false },
      cursor: { y: false, ...(sync ? { sync: { key: sync } } : {}) },
      scales: { x: { ...(seconds ? { range: lastSeconds(seconds) } : {}) }, y: { range: fromZero } },
      ...looksOf(place, series),
      hooks: { setCursor: [(/** @type {import('uplot')} */ { cursor }) => showLegend(cursor.idx)] },
    };
    plot = new uPlot(options, drawn(), place);
  }

  draw();
  new ResizeObserver(() => {
    const width = widthOf(place);
    if (plot && plot.width !== width) plot.setSize({ width, height: HEIGHT_PX });
  }).observe(place);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  return {
    show(data) {
      shown = data;
      plot?.setData(drawn());
      showLegend(plot?.cursor.idx);
    },
  };
}

/** @param {HTMLElement} place */
const widthOf = (place) => Math.max(200, place.clientWidth);

/** @param {HTMLElement} place @param {Series[]} series */
function createLegend(place, series) {
  const legend = Object.assign(document.createElement('p'), { className: 'legend' });
  const parts = series.map(({ label, colour }) => {
    const part = document.createElement('span');
    const value = document.createElement('b');
    part.append(Object.assign(document.createElement('i'), { className: colour }), `${label} `, value);
    legend.append(part);
    return value;
  });
  const time = Object.assign(document.createElement('span'), { className: 'at' });
  place.before(time);
  place.after(legend);
  return {
    /** @param {Data} data @param {number | null | undefined} index undefined: of the last */
    show(data, index) {
      const at = index ?? (data[0]?.length ?? 0) - 1;
      parts.forEach((value, of) => {
        value.textContent = measure(data[of + 1]?.[at]);
      });
      const seconds = data[0]?.[at];
      time.textContent = typeof index === 'number' && typeof seconds === 'number' ? moment(seconds * 1000) : '';
    },
  };
}

/** A 0 between others like it is left out. @param {(number | null)[]} values */
const withoutRest = (values) =>
  values.map((value, index) => (value === 0 && !values[index - 1] && !values[index + 1] ? null : value));

/** @param {number} seconds @returns {(plot: unknown, low: number | null, high: number | null) => [number, number]} */
const lastSeconds = (seconds) => (_plot, low, high) => {
  const end = high ?? Date.now() / 1000;
  return [Math.min(low ?? end, end - seconds), end];
};

/** @type {(plot: unknown, low: number | null, high: number | null) => [number, number]} */
const fromZero = (_plot, low, high) => {
  const [least, most] = [Math.min(0, low ?? 0), Math.max(0, high ?? 0)];
  return [least, least === most ? 1 : most];
};

/** @param {HTMLElement} place @param {Series[]} series @returns {Pick<import('uplot').Options, 'axes' | 'series'>} */
function looksOf(place, series) {
  const style = getComputedStyle(document.documentElement);
  const colour = (/** @type {string} */ name) => resolved(style.getPropertyValue(`--${name}`), place);
  const axis = {
    stroke: colour('faint'),
    grid: { stroke: colour('line'), width: 1 },
    ticks: { stroke: colour('line') },
  };
  return {
    axes: [
      { ...axis, space: 70, size: 34, values: (_plot, times) => times.map((time) => timeLabel(time, times)) },
      { ...axis, size: 56, values: (_plot, values) => values.map((value) => short(value)) },
    ],
    series: [
      {},
      ...series.map(({ colour: name, fill, stepped }) => ({
        stroke: colour(name),
        width: 1.5,
        points: { show: false },
        ...(fill ? { fill: `${colour(name)}22` } : {}),
        ...(stepped && uPlot.paths.stepped ? { paths: uPlot.paths.stepped({ align: 1 }) } : {}),
      })),
    ],
  };
}

/** light-dark() as the colour that it stands for now, in hexadecimal digits. @param {string} value @param {HTMLElement} place */
function resolved(value, place) {
  const probe = document.createElement('span');
  probe.style.color = value;
  place.append(probe);
  const [red = 0, green = 0, blue = 0] = (getComputedStyle(probe).color.match(/[\d.]+/g) ?? []).map(Number);
  probe.remove();
  return `#${[red, green, blue].map((part) => Math.round(part).toString(16).padStart(2, '0')).join('')}`;
}

/** @param {number} value */
function short(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return `${value / 1e9} G`;
  if (size >= 1e6) return `${value / 1e6} M`;
  if (size >= 1e4) return `${value / 1e3} k`;
  return String(Math.round(value * 1000) / 1000);
}

const ofDay = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });
const ofYear = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });
const DAY_S = 86_400;

/** @param {number} time in seconds @param {readonly number[]} all */
function timeLabel(time, all) {
  const span = (all.at(-1) ?? 0) - (all[0] ?? 0);
  return (span > DAY_S ? ofYear : ofDay).format(time * 1000);
}
