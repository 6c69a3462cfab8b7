// The live part: figures each second, plots of the last minutes, and the newest events.
import { createPlot } from './plot.js';
import { count, direction, duration, element, mark, measure, moment, row, show, signed } from './show.js';

const SECONDS_SHOWN = 300;
const EVENTS_SHOWN = 20;
/** The service tells something each second. */
const STALE_MS = 3500;
/** Behind that the ledger is behind, and not only busy. */
const LAG_WARN_MS = 10_000;

/** @typedef {import('../figures.ts').Figures} Figures */
/** @typedef {import('../live-stream.ts').Live} Live */
/** @typedef {import('../event-tap.ts').LedgerQueue} LedgerQueue */
/** @typedef {import('../../../shared/contract.ts').BalanceEvent} BalanceEvent */

export function createLive() {
  const rates = createPlot(element('rate-plot'), {
    series: [
      { label: 'accepted', colour: 'accent', fill: true },
      { label: 'declined', colour: 'second' },
      { label: 'refused', colour: 'bad' },
    ],
  });
  const times = createPlot(element('time-plot'), {
    series: [
      { label: 'p50', colour: 'accent' },
      { label: 'p99', colour: 'second' },
    ],
  });
  const lag = createPlot(element('lag-plot'), { series: [{ label: 'changes', colour: 'accent', fill: true }] });
  /** @type {(number | null)[][]} one list for each value, oldest first: time, and what the plots show */
  const history = Array.from({ length: 7 }, () => []);
  /** @type {BalanceEvent[]} newest first */
  let events = [];
  let seenSince = 0;
  let eventsChanged = false;
  let heardAtMs = performance.now();
  let heardAt = new Date();
  let lost = '';
  let lostAt = new Date();

  /** @param {(number | null)[]} values */
  function remember(values) {
    history.forEach((list, index) => {
      list.push(values[index] ?? null);
      if (list.length > SECONDS_SHOWN) list.shift();
    });
    const [at, accepted, declined, refused, p50, p99, pending] = /** @type {any} */ (history);
    rates.show([at, accepted, declined, refused]);
    times.show([at, p50, p99]);
    lag.show([at, pending]);
  }

  /** @param {Live} live */
  function showLive({ at, figures, problem, database, broker, ledgerQueue, instance, processes }) {
    heardAtMs = performance.now();
    heardAt = new Date();
    show('instance', `${instance}${processes > 1 ? `, ${processes} processes together` : ''}`);
    showDatabase(database);
    showBroker(broker, figures);
    showWorker(ledgerQueue);
    showFigures(figures, problem);
    // Where nothing is known the plots have a gap.
    remember([
      new Date(at).getTime() / 1000,
      ...(figures
        ? [figures.accepted, figures.declined, figures.refused, figures.p50Ms, figures.p99Ms, figures.pending]
        : []),
    ]);
    showEventsNote(broker, figures);
    seenSince = 0;
  }

  /** @param {Figures | null} figures @param {string | null} problem */
  function showFigures(figures, problem) {
    const replayed = figures?.replayed ?? 0;
    show('accepted', measure(figures?.accepted));
    show(
      'accepted-note',
      problem
        ? `not known: ${problem}`
        : replayed > 0
          ? `and ${measure(replayed)}/s answered again under their key`
          : 'balance updates',
    );
    show('declined', measure(figures?.declined));
    show('refused', measure(figures?.refused));
    mark('refused-tile', (figures?.refused ?? 0) > 0 ? 'bad' : '');
    show('p50', measure(figures?.p50Ms));
    show('p99', measure(figures?.p99Ms));
    show('batch', measure(figures?.batchSize));
    show('waiting', count(figures?.waiting));
    const { pending = null, lagMs = null } = figures ?? {};
    show('pending', count(pending));
    show('lag', lagMs === null ? 'not known' : pending === 0 ? 'nothing' : duration(lagMs));
    mark('ledger-tile', lagMs === null ? '' : lagMs > LAG_WARN_MS ? 'bad' : 'good');
  }

  /** @param {LedgerQueue | null} queue */
  function showWorker(queue) {
    show('queue', count(queue?.waiting));
    show('worker', queue === null ? 'not known' : queue.consumers > 0 ? 'connected' : 'none');
    show(
      'worker-note',
      queue === null
        ? 'RabbitMQ would tell'
        : queue.consumers === 0
          ? 'nobody writes the ledger'
          : queue.consumers === 1
            ? 'takes events'
            : `${count(queue.consumers)} take events`,
    );
    mark('worker-tile', queue === null ? '' : queue.consumers > 0 ? 'good' : 'bad');
  }

  /** @param {Live['broker']} broker @param {Figures | null} figures */
  function showEventsNote(broker, figures) {
    const shown = `${measure(seenSince)} of about ${measure(figures?.confirmed)} a second`;
    show(
      'events-note',
      broker !== 'connected'
        ? 'none come, RabbitMQ is away: these are from before'
        : figures && figures.confirmed > seenSince * 1.5 + 5
          ? `a sample: ${shown}`
          : 'as they come from RabbitMQ',
    );
    element('events').classList.toggle('is-past', broker !== 'connected');
  }

  /** @param {string} database */
  function showDatabase(database) {
    show('database', database === 'ok' ? 'ready' : 'not ready');
    show('database-note', database === 'ok' ? 'takes updates' : database);
    mark('database-tile', database === 'ok' ? 'good' : 'bad');
  }

  /** @param {Live['broker']} broker @param {Figures | null} figures */
  function showBroker(broker, figures) {
    const blocked = figures?.link === 'blocked';
    show('broker', broker !== 'connected' ? 'disconnected' : blocked ? 'blocked' : 'connected');
    const relaying = figures && figures.relays > 0 ? 'the relay is here' : 'no active relay here';
    show(
      'broker-note',
      broker !== 'connected'
        ? 'updates are accepted and wait in the outbox'
        : blocked
          ? 'over its limit of memory or disk'
          : `${relaying}${figures && figures.relays > 0 ? `, ${measure(figures.confirmed)}/s confirmed` : ''}`,
    );
    mark('broker-tile', broker === 'connected' && !blocked ? 'good' : 'bad');
  }

  function showEvents() {
    if (!eventsChanged) return;
    eventsChanged = false;
    element('events').replaceChildren(
      ...events.map(({ time, type, data: { accountId, version, amount, balance, reference } }) =>
        row([
          { text: accountId, className: 'text', title: accountId },
          { text: count(version), className: 'number' },
          { text: type, className: 'text' },
          { text: signed(amount), className: direction(amount) },
          { text: count(balance), className: 'number' },
          { text: reference ?? '', className: 'text', title: reference ?? '' },
          { text: moment(time) },
        ]),
      ),
    );
  }

  // In the pace of an eye, whatever the pace of the events.
  setInterval(() => {
    showEvents();
    const silentMs = performance.now() - heardAtMs;
    const isStale = lost !== '' || silentMs > STALE_MS;
    document.body.classList.toggle('is-stale', isStale);
    element('stale').hidden = !isStale;
    if (isStale) {
      show(
        'stale',
        lost === ''
          ? `The service has told nothing since ${moment(heardAt)}: what stands here is from then.`
          : `Disconnected since ${moment(lostAt)} (${lost}): what stands here is from then. It connects again by itself.`,
      );
    }
  }, 250);

  return {
    /** @param {string} name @param {any} data */
    onEvent(name, data) {
      if (name === 'live') showLive(data);
      if (name !== 'events') return;
      seenSince += data.length;
      events = [...data.toReversed(), ...events].slice(0, EVENTS_SHOWN);
      eventsChanged = true;
    },
    /** @param {'connected' | 'disconnected'} state @param {string} [why] */
    onState(state, why = '') {
      show('link', state);
      const link = element('link');
      link.classList.toggle('good', state === 'connected');
      link.classList.toggle('bad', state !== 'connected');
      if (state === 'disconnected' && lost === '') lostAt = new Date();
      lost = state === 'connected' ? '' : why;
    },
  };
}
