// In the process that is measured (node --import): looks at the turns of its event loop when it is told to.
import { watchTurns } from '../support/turns.ts';

let over = () => 0;

process.on('message', (message) => {
  if (message === 'look') {
    over = watchTurns();
    process.send?.({ looking: true });
  } else if (message === 'tell') process.send?.({ longestMs: over() });
});
process.channel?.unref(); // the service has a life of its own
