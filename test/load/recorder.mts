// Runs inside artillery, whose own reports are 10 s apart and count whole milliseconds: writes a line for each request,
// so that a run of 10 s has curves. parseRecording() in measurements.ts reads the file.
import { openSync, writeSync } from 'node:fs';

interface Context {
  startedAtMs?: number;
}
type Done = (error?: Error) => void;

const token = process.env.BALANCE_TOKEN;
const file = openSync(process.env.RECORD_FILE ?? '', 'a');
const nowMs = () => performance.timeOrigin + performance.now();

/**
 * Called by artillery when the request is due: a wait for a free connection counts, as it does for a
 * caller. The key is added here, because a variable of the scenario would stand in the command line.
 */
export function recordStart(
  request: { headers?: Record<string, string> },
  context: Context,
  _events: unknown,
  done: Done,
): void {
  watchPauses();
  if (token) request.headers = { ...request.headers, authorization: `Bearer ${token}` };
  context.startedAtMs = nowMs();
  done();
}

/** Called by artillery when the whole answer is there. */
export function recordResponse(
  _request: unknown,
  response: { statusCode: number },
  context: Context,
  _events: unknown,
  done: Done,
): void {
  record(context, String(response.statusCode));
  done();
}

/** Called by artillery when there is no answer, sometimes twice. */
export function recordError(
  error: NodeJS.ErrnoException,
  _request: unknown,
  context: Context,
  _events: unknown,
  done: Done,
): void {
  record(context, (error.code ?? error.name).replaceAll(/\W/g, '_'));
  done();
}

// Written at once: artillery ends its threads without asking. That costs some microseconds, sending costs hundreds.
function record(context: Context, outcome: string): void {
  const { startedAtMs } = context;
  if (startedAtMs === undefined) return;
  delete context.startedAtMs;
  writeSync(file, `${startedAtMs.toFixed(3)},${(nowMs() - startedAtMs).toFixed(3)},${outcome}\n`);
}

const TICK_MS = 10;
const PAUSE_MIN_MS = 30;
let isWatching = false;

// While the generator stands still, answers wait for it: then the latency is its own. Only in the thread that sends.
function watchPauses(): void {
  if (isWatching) return;
  isWatching = true;
  let tickedAtMs = nowMs();
  setInterval(() => {
    const pauseMs = nowMs() - tickedAtMs - TICK_MS;
    if (pauseMs > PAUSE_MIN_MS) writeSync(file, `${tickedAtMs.toFixed(3)},${pauseMs.toFixed(3)},generator_pause\n`);
    tickedAtMs = nowMs();
  }, TICK_MS).unref();
}
