// The console: three parts of a page, one stream, one key.
import { createAccount } from './account.js';
import { watchKey } from './key.js';
import { createLive } from './live.js';
import { input } from './show.js';
import { openStream } from './stream.js';
import { createTry } from './try.js';

const live = createLive();
const account = createAccount();
const attempt = createTry({
  onApplied(accountId) {
    if (input('find-id').value === '') input('find-id').value = accountId;
  },
});
const stream = openStream('console/stream', {
  onEvent(name, data) {
    live.onEvent(name, data);
    if (name === 'events') attempt.onEvents(data);
  },
  onState: live.onState,
});
watchKey(() => stream.restart());

// An account can be linked to: console?account=alice
const asked = new URLSearchParams(location.search).get('account');
if (asked) {
  input('find-id').value = asked;
  void account.open(asked);
}
