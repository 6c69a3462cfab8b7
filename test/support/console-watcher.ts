// A watcher of the console's stream without a browser.
import { expect } from 'vitest';
import type { Live } from '../../src/api/console/live-stream.ts';
import type { BalanceEvent } from '../../src/shared/contract.ts';
import { onCleanUp } from './harness.ts';

export interface Watcher {
  live: Live[];
  events: BalanceEvent[];
  ended: Promise<void>;
  leave(): void;
}

/**
 * How many there were since the first reading. Figures are of the time since the last reading that succeeded: on a busy machine one
 * is missing now and then.
 */
export function countOf({ live }: Watcher, figure: 'accepted' | 'declined'): number {
  const read = live.filter(({ problem }) => problem === null);
  const atMs = (index: number) => Date.parse(read[index]?.at ?? '');
  return read.reduce(
    (sum, { figures }, index) => (figures ? sum + (figures[figure] * (atMs(index) - atMs(index - 1))) / 1000 : sum),
    0,
  );
}

/** Opens the console's stream and keeps what comes. */
export async function watch(base: string, headers: Record<string, string>): Promise<Watcher> {
  const leaving = new AbortController();
  const response = await fetch(`${base}/console/stream`, { headers, signal: leaving.signal });
  expect(response.status).toBe(200);
  expect(response.headers.get('content-type')).toBe('text/event-stream');
  const live: Live[] = [];
  const events: BalanceEvent[] = [];
  const read = async () => {
    let text = '';
    for await (const piece of (response.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream())) {
      const blocks = (text + piece).split('\n\n');
      text = blocks.pop() as string;
      for (const block of blocks) {
        const [, name, data] = /^event: (.*)\ndata: (.*)$/.exec(block) ?? [];
        if (name === 'live') live.push(JSON.parse(data as string));
        if (name === 'events') events.push(...JSON.parse(data as string));
      }
    }
  };
  const leave = () => leaving.abort();
  onCleanUp(async () => leave());
  return { live, events, ended: read().catch(() => {}), leave };
}
