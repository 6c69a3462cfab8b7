// The ledger of an account as a file, streamed: complete, or an error if it breaks off.
import { Readable } from 'node:stream';
import { BalanceError } from './balance-error.ts';
import { type Connection, type Http, type HttpRequest, open, readAnswer } from './http.ts';
import type { Outcome } from './persist.ts';

export type ExportFormat = 'csv' | 'jsonl';

export interface ExportedEntries {
  /** The file is complete up to this version; null while the ledger lacks the first. */
  ledgerVersion: number | null;
  /** UTF-8. Fails with a BalanceError if it breaks off: the file is then incomplete. */
  body: Readable;
}

/** How long the reader may take for one piece; the service waits no longer either. */
const TAKEN_MS_MAX = 60_000;

/** Makes one attempt. */
export async function downloadEntries(
  http: Http,
  path: string,
  over: AbortSignal,
  signal: AbortSignal | undefined,
): Promise<Outcome<ExportedEntries>> {
  const request: HttpRequest = { method: 'GET', path, accept: '*/*', answerHas: '' };
  const opened = await open(http, request, over);
  if ('failed' in opened) return opened;
  const connection = opened.done;
  const { response } = connection;
  if (response.ok && /^(text\/csv|application\/jsonl)\b/.test(response.headers.get('content-type') ?? '')) {
    connection.detach();
    const ledgerVersion = response.headers.get('ledger-version');
    return {
      done: {
        ledgerVersion: ledgerVersion === null ? null : Number(ledgerVersion),
        body: bodyOf(connection, http.attemptTimeoutMs, signal),
      },
    };
  }
  try {
    return (await readAnswer<never>(http, connection, request)) as Outcome<never>;
  } finally {
    connection.close();
  }
}

/** @param pieceTimeoutMs the longest time in which nothing comes. */
function bodyOf(
  { response, abort, close }: Connection,
  pieceTimeoutMs: number,
  signal: AbortSignal | undefined,
): Readable {
  const reader = response.body?.getReader();
  let isWhole = false;
  let timer: NodeJS.Timeout | undefined;
  const within = (ms: number, onLate: () => void) => {
    clearTimeout(timer);
    timer = setTimeout(onLate, ms);
  };
  const brokenOff = (cause: unknown) =>
    new BalanceError('unreachable', 'The file broke off: it is incomplete.', { cause });
  const onAbort = () => body.destroy(new BalanceError('aborted', 'The call was aborted.', { cause: signal?.reason }));
  // There may be no listener any more: destroyed without an error, and a reader sees a premature
  // end.
  const onUntaken = () => body.destroy();

  const body = new Readable({
    read() {
      within(pieceTimeoutMs, () => body.destroy(brokenOff(new Error(`nothing came for ${pieceTimeoutMs} ms`))));
      Promise.resolve(reader?.read()).then(
        (piece) => {
          if (body.destroyed) return;
          isWhole = piece?.value === undefined;
          within(TAKEN_MS_MAX, onUntaken);
          body.push(piece?.value ?? null);
        },
        (cause) => body.destroy(brokenOff(cause)),
      );
    },
    destroy(error, callback) {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      if (!isWhole) abort();
      close();
      callback(error);
    },
  });
  within(TAKEN_MS_MAX, onUntaken);
  signal?.addEventListener('abort', onAbort);
  if (signal?.aborted) onAbort();
  return body;
}
