// Loads the page. Where the service is too busy to give one of its parts, none of them runs: then
// it is loaded again.
const AGAIN_MS = 2000;

import('./console.js').catch((error) => {
  if (!(error instanceof TypeError)) throw error;
  const notice = document.getElementById('stale');
  if (notice) {
    notice.textContent = 'The service has not given all of this page. It is loaded again in a moment.';
    notice.hidden = false;
  }
  setTimeout(() => location.reload(), AGAIN_MS);
});
