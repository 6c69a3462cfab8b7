// The live part: figures each second, plots of the last minutes, and the newest events.
import { createEvents } from './events.js';
import { createPlot } from './plot.js';
import { element, show } from './show.js';
import { showTiles } from './tiles.js';

const SECONDS_KEPT = 300;
const SECONDS_SHOWN_MIN = 60;

/** @typedef {import('../live-stream.ts').Live} Live */

export function createLive() {
  const options = { seconds: SECONDS_SHOWN_MIN, sync: 'live' };
  const rates = createPlot(element('rate-plot'), {
    ...options,
    series: [
      { label: 'accepted', colour: 'accent', fill: true },
      { label: 'declined', colour: 'second', quiet: true },
      { label: 'refused', colour: 'bad', quiet: true },
    ],
  });
  const times = createPlot(element('time-plot'), {
    ...options,
    series: [
      { label: 'p50', colour: 'accent' },
      { label: 'p99', colour: 'second' },
    ],
  });
  const lag = createPlot(element('lag-plot'), {
    ...options,
    series: [{ label: 'changes', colour: 'accent', fill: true }],
  });
  const events = createEvents();
  /** @type {(number | null)[][]} one list for each value, oldest first: time, and what the plots show */
  const history = Array.from({ length: 7 }, () => []);

  /** @param {(number | null)[]} values */
  function remember(values) {
    history.forEach((list, index) => {
      list.push(values[index] ?? null);
      if (list.length > SECONDS_KEPT) list.shift();
    });
    const [at, accepted, declined, refused, p50, p99, pending] = /** @type {any} */ (history);
    rates.show([at, accepted, declined, refused]);
    times.show([at, p50, p99]);
    lag.show([at, pending]);
  }

  /** @param {Live} live */
  function showLive(live) {
    const { at, figures, instance, processes } = live;
    show('instance', `${instance}${processes > 1 ? `, ${processes} processes together` : ''}`);
    showTiles(live);
    // Where nothing is known the plots have a gap.
    remember([
      new Date(at).getTime() / 1000,
      ...(figures
        ? [figures.accepted, figures.declined, figures.refused, figures.p50Ms, figures.p99Ms, figures.pending]
        : []),
    ]);
    events.onLive(live);
  }

  return {
    /** @param {string} name @param {any} data */
    onEvent(name, data) {
      if (name === 'live') showLive(data);
      if (name === 'events') events.onEvents(data);
    },
  };
}
