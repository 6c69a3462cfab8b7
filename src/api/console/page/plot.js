// Plots in the colours of the page, as wide as their place.

import { measure, moment } from './show.js';
// @ts-expect-error: a file of the package uplot, whose types are below
import bundled from './uplot.js';

/** @type {typeof import('uplot')} */
const uPlot = bundled;

const HEIGHT_PX = 150;

/**
 * @param {HTMLElement} place
 * @param {{ series: { label: string, colour: string, fill?: boolean, stepped?: boolean }[] }} options
 * @returns {{ show(data: (number | null)[][]): void }} data: seconds since 1970, then a list for each series
 */
export function createPlot(place, { series }) {
  /** @type {import('uplot') | undefined} */
  let plot;
  /** @type {(number | null)[][]} */
  let shown = [];

  function draw() {
    plot?.destroy();
    const style = getComputedStyle(document.documentElement);
    const colour = (/** @type {string} */ name) => resolved(style.getPropertyValue(`--${name}`), place);
    const axis = {
      stroke: colour('faint'),
      grid: { stroke: colour('line'), width: 1 },
      ticks: { stroke: colour('line') },
    };
    plot = new uPlot(
      {
        width: Math.max(200, place.clientWidth),
        height: HEIGHT_PX,
        cursor: { y: false },
        scales: {
          y: { range: (_plot, low, high) => [Math.min(0, low ?? 0), high > 0 || low < 0 ? Math.max(high, 0) : 1] },
        },
        axes: [
          { ...axis, space: 70, size: 34, values: (_plot, times) => times.map((time) => timeLabel(time, times)) },
          { ...axis, size: 56, values: (_plot, values) => values.map((value) => short(value)) },
        ],
        series: [
          { label: '', value: (_plot, time) => (time === null ? '' : moment(time * 1000)) },
          ...series.map(({ label, colour: name, fill, stepped }) => ({
            label,
            value: (/** @type {unknown} */ _plot, /** @type {number | null} */ value) => measure(value, ''),
            stroke: colour(name),
            width: 1.5,
            points: { show: false },
            ...(fill ? { fill: `${colour(name)}22` } : {}),
            ...(stepped && uPlot.paths.stepped ? { paths: uPlot.paths.stepped({ align: 1 }) } : {}),
          })),
        ],
      },
      /** @type {import('uplot').AlignedData} */ (shown.length > 0 ? shown : [[], ...series.map(() => [])]),
      place,
    );
  }

  draw();
  new ResizeObserver(() => {
    const width = Math.max(200, place.clientWidth);
    if (plot && plot.width !== width) plot.setSize({ width, height: HEIGHT_PX });
  }).observe(place);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  return {
    show(data) {
      shown = data;
      plot?.setData(/** @type {import('uplot').AlignedData} */ (data));
    },
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
