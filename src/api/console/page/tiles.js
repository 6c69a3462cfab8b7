// The figures of a second, and what each means: good, worth a look, or bad.
import { count, duration, mark, measure, show } from './show.js';

/** Events are recorded within a second or two, also under load. */
const LAG_USUAL_MS = 2000;
/** The alert BalanceLedgerLags (docs/monitoring/alerts.yml). */
const LAG_ALERT_MS = 60_000;
/** The alert BalanceRequestsSlow. */
const SLOW_ALERT_MS = 500;

/** @typedef {import('../figures.ts').Figures} Figures */
/** @typedef {import('../live-stream.ts').Live} Live */

/** @param {Live} live */
export function showTiles({ figures, problem, database, broker, ledgerQueue }) {
  showRates(figures, problem);
  showTimes(figures);
  showLag(figures);
  showDatabase(database);
  showBroker(broker, figures);
  showWorker(ledgerQueue);
}

/** @param {Figures | null} figures @param {string | null} problem */
function showRates(figures, problem) {
  const replayed = figures?.replayed ?? 0;
  show('accepted', measure(figures?.accepted));
  show(
    'accepted-note',
    problem
      ? `not known: ${problem}`
      : replayed > 0
        ? `and ${measure(replayed)}/s answered again under their key`
        : 'updates, transfers, and changes of holds',
  );
  show('declined', measure(figures?.declined));
  show('refused', measure(figures?.refused));
  mark('refused-tile', (figures?.refused ?? 0) > 0 ? 'bad' : '');
  show('batch', measure(figures?.batchSize));
  show('waiting', count(figures?.waiting));
}

/** @param {Figures | null} figures */
function showTimes(figures) {
  const { p50Ms = null, p99Ms = null } = figures ?? {};
  show('p50', p50Ms === null ? '–' : duration(p50Ms));
  show('p99', p99Ms === null ? '–' : duration(p99Ms));
  mark('p99-tile', p99Ms !== null && p99Ms > SLOW_ALERT_MS ? 'warn' : '');
}

/** @param {Figures | null} figures */
function showLag(figures) {
  const { pending = null, lagMs = null } = figures ?? {};
  const isKnown = lagMs !== null && pending !== null;
  show('lag', !isKnown ? 'not known' : pending === 0 ? 'none' : duration(lagMs));
  const state = !isKnown ? '' : lagMs > LAG_ALERT_MS ? 'bad' : lagMs > LAG_USUAL_MS ? 'warn' : 'good';
  mark('ledger-tile', state);
  const howLong = { good: '', warn: ', longer than usual', bad: ', for over a minute', '': '' }[state];
  show(
    'lag-note',
    !isKnown ? '' : pending === 0 ? 'it has every change' : `${count(pending)} changes not in it yet${howLong}`,
  );
}

/** @param {string} database */
function showDatabase(database) {
  show('database', database === 'ok' ? 'ready' : 'not ready');
  show('database-note', database === 'ok' ? 'takes updates' : database);
  mark('database-tile', database === 'ok' ? 'good' : 'bad');
}

/** @param {Live['broker']} broker @param {Figures | null} figures */
function showBroker(broker, figures) {
  const isConnected = broker === 'connected';
  const isBlocked = figures?.link === 'blocked';
  const isRelay = figures !== null && figures.relays > 0;
  show('broker', !isConnected ? 'disconnected' : isBlocked ? 'blocked' : 'connected');
  show(
    'broker-note',
    !isConnected
      ? 'updates are accepted, and wait in the outbox'
      : isBlocked
        ? 'over its limit of memory or disk'
        : isRelay
          ? `the relay is here, ${measure(figures.confirmed)}/s confirmed`
          : 'no active relay here',
  );
  mark('broker-tile', isConnected && !isBlocked ? 'good' : 'bad');
}

/** @param {Live['ledgerQueue']} queue */
function showWorker(queue) {
  const workers = queue?.consumers;
  show('queue', count(queue?.waiting));
  show('worker', workers === undefined ? 'not known' : workers > 0 ? 'connected' : 'none');
  show(
    'worker-note',
    workers === undefined
      ? 'only RabbitMQ knows'
      : workers === 0
        ? 'nobody writes the ledger'
        : workers === 1
          ? 'takes events'
          : `${count(workers)} take events`,
  );
  mark('worker-tile', workers === undefined ? '' : workers > 0 ? 'good' : 'bad');
}
