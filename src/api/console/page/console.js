// The console: views of one page, one stream, one key.
import { createAccount } from './account.js';
import { createAccounts } from './accounts.js';
import { showCaller } from './caller.js';
import { createConnection } from './connection.js';
import { watchKey } from './key.js';
import { createLive } from './live.js';
import { placeNow, watchPlace } from './route.js';
import { openStream } from './stream.js';
import { createTransfer } from './transfer.js';
import { createTry } from './try.js';

const connection = createConnection();
const live = createLive();
const account = createAccount();
const attempt = createTry();
/** @typedef {import('./route.js').Place} Place */
/** @type {Record<string, { show(place: Place, before?: Place): void }>} */
const views = { accounts: createAccounts(), account, transfer: createTransfer(), try: attempt };

/** @param {Place} place @param {Place} [before] */
const showPlace = (place, before) => views[place.view]?.show(place, before);

const stream = openStream('console/stream', {
  onEvent(name, data) {
    live.onEvent(name, data);
    if (name === 'caller') showCaller(data);
    if (name === 'live') connection.onLive();
    if (name !== 'events') return;
    attempt.onEvents(data);
    account.onEvents(data);
  },
  onState: connection.onState,
});
watchKey(() => {
  showCaller(undefined);
  stream.restart();
  showPlace(placeNow());
});
watchPlace(showPlace);

// A table that continues to the side is scrolled with the keyboard too.
const areas = new ResizeObserver((changes) => {
  for (const { target } of changes) {
    const area = /** @type {HTMLElement} */ (target.closest('.scroll'));
    area.tabIndex = area.scrollWidth > area.clientWidth ? 0 : -1;
  }
});
for (const part of document.querySelectorAll('.scroll, .scroll table')) areas.observe(part);
