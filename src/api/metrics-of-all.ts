// The metrics of all processes behind the port, whichever process is scraped: the primary collects
// and aggregates them.
import cluster from 'node:cluster';
import { AggregatorRegistry } from 'prom-client';
import type { Registry } from '../shared/metrics.ts';
import { within } from '../shared/within.ts';

/** Above the 5 s that the primary waits for a process. */
const PRIMARY_TIMEOUT_MS = 6000;
const QUESTION = 'highload-balance:metrics?';
const ANSWER = 'highload-balance:metrics';

interface Message {
  type: string;
  id: number;
  text?: string;
}

let questions = 0;
/** One at a time, shared by all requests that arrive meanwhile. */
let reading: Promise<string> | undefined;
const waiting = new Map<number, (text: string | undefined) => void>();

/** In a process of a cluster: lets the primary collect this registry. */
export function answerPrimary(registry: Registry): void {
  AggregatorRegistry.setRegistries([registry]);
  new AggregatorRegistry(); // begins to listen
}

/** In the primary: answers the processes that ask. */
export function answerForMetrics(): void {
  const all = new AggregatorRegistry();
  let collecting: Promise<string | undefined> | undefined;
  cluster.on('message', (child, { type, id }: Message) => {
    if (type !== QUESTION) return;
    const answer = (text: string | undefined) => child.isConnected() && child.send({ type: ANSWER, id, text });
    collecting ??= all
      .clusterMetrics()
      .catch(() => undefined)
      .finally(() => {
        collecting = undefined;
      });
    void collecting.then(answer);
  });
}

/** Of this process, or in a cluster of all. @throws when the primary or one of the processes does not answer. */
export async function readMetrics(registry: Registry): Promise<{ contentType: string; text: string }> {
  reading ??= (cluster.isWorker ? askPrimary() : registry.metrics()).finally(() => {
    reading = undefined;
  });
  return { contentType: registry.contentType, text: await reading };
}

async function askPrimary(): Promise<string> {
  questions += 1;
  const id = questions;
  if (questions === 1)
    process.on('message', ({ type, id, text }: Message) => type === ANSWER && waiting.get(id)?.(text));
  const answer = new Promise<string | undefined>((resolve) => waiting.set(id, resolve));
  process.send?.({ type: QUESTION, id });
  const text = await within(PRIMARY_TIMEOUT_MS, answer, () => undefined);
  waiting.delete(id);
  if (text === undefined) throw new Error('the metrics of the other processes could not be read');
  return text;
}
