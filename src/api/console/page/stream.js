// Server-sent events over fetch: EventSource cannot send a key. Connects again by itself, with
// growing pauses.
import { askForKey, hasKey, keyHeaders, problemText } from './key.js';

const PAUSE_MIN_MS = 1000;
const PAUSE_MAX_MS = 10_000;
/** The service reports something every second. */
const SILENCE_MAX_MS = 15_000;

/**
 * @param {string} path
 * @param {{ onEvent: (name: string, data: any) => void, onState: (state: import('./connection.js').ConnectionState, why?: string) => void }} handlers
 * @returns {{ restart(): void }} restart: with another key
 */
export function openStream(path, { onEvent, onState }) {
  let run = 0;
  let abort = new AbortController();

  /** @param {number} mine */
  async function keepOpen(mine) {
    for (let pauseMs = PAUSE_MIN_MS; mine === run; pauseMs = Math.min(PAUSE_MAX_MS, pauseMs * 2)) {
      try {
        await readOnce(mine, () => {
          pauseMs = PAUSE_MIN_MS;
        });
        if (mine !== run) return;
        onState('disconnected', 'the service ended the stream');
      } catch (error) {
        if (mine !== run) return;
        if (error instanceof NeedsKey) {
          const problem = hasKey() ? error.message : ''; // a person without one has done nothing wrong
          onState('no API key', problem);
          askForKey(problem);
          return;
        }
        onState('disconnected', wordsOf(error));
      }
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }

  /** @param {number} mine @param {() => void} onFirst */
  async function readOnce(mine, onFirst) {
    abort = new AbortController();
    const mineAbort = abort;
    let silence = setTimeout(() => mineAbort.abort(new Error('the service does not answer')), SILENCE_MAX_MS);
    try {
      const response = await fetch(path, { headers: keyHeaders(), signal: mineAbort.signal });
      if (response.status === 401 || response.status === 403) {
        throw new NeedsKey(problemText(await response.json(), response.status));
      }
      if (!response.ok || !response.body) throw new Error(problemText(await response.json(), response.status));
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = '';
      for (;;) {
        const { done, value } = await reader.read();
        if (done || mine !== run) return;
        clearTimeout(silence);
        silence = setTimeout(() => mineAbort.abort(new Error('the service fell silent')), SILENCE_MAX_MS);
        onState('connected');
        onFirst();
        text += value;
        const blocks = text.split('\n\n');
        text = blocks.pop() ?? '';
        for (const block of blocks) deliver(block);
      }
    } finally {
      clearTimeout(silence);
      mineAbort.abort();
    }
  }

  /** @param {string} block */
  function deliver(block) {
    const name = /^event: (.*)$/m.exec(block)?.[1];
    const data = /^data: (.*)$/m.exec(block)?.[1];
    if (name && data) onEvent(name, JSON.parse(data));
  }

  const restart = () => {
    run += 1;
    abort.abort();
    onState('connecting');
    void keepOpen(run);
  };
  restart();
  return { restart };
}

class NeedsKey extends Error {}

/** Browsers say that there was no answer by a TypeError, each in its own words. @param {unknown} error */
const wordsOf = (error) =>
  error instanceof TypeError ? 'no answer' : error instanceof Error ? error.message : String(error);
