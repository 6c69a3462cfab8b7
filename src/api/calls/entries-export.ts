// A history as a file: CSV or JSON lines, oldest first, streamed in bounded memory however long it is.
import type { ServerResponse } from 'node:http';
import { changeBody, eventId } from '../../shared/change.ts';
import { encodeInPieces, type Pieces } from '../http/pieces.ts';
import type { Entry } from './history-store.ts';

export type ExportFormat = 'csv' | 'jsonl';

interface Form {
  contentType: string;
  head: string;
  line(entry: Entry): string;
}

/** A column each, in this order: the names of the JSON form, what is nested by its path. */
const COLUMNS: readonly (readonly [name: string, text: (entry: Entry) => string])[] = [
  ['eventId', (entry) => csvText(eventId(entry))],
  ['type', ({ type }) => type],
  ['version', ({ version }) => String(version)],
  ['epoch', ({ epoch }) => String(epoch)],
  ['previousEpoch', ({ previousEpoch }) => String(previousEpoch ?? '')],
  ['asset', ({ asset }) => csvText(asset)],
  ['amount', ({ amount }) => String(amount)],
  ['heldChange', ({ heldChange }) => String(heldChange)],
  ['balance', ({ balance }) => String(balance)],
  ['held', ({ held }) => String(held)],
  ['createdAt', ({ createdAt }) => createdAt.toISOString()],
  ['recordedAt', ({ recordedAt }) => recordedAt.toISOString()],
  ['reference', ({ reference }) => csvText(reference ?? '')],
  ['actor', ({ actor }) => csvText(actor ?? '')],
  ['metadata', ({ metadata }) => csvJson(metadata ?? '')],
  ['transferId', ({ transferId }) => csvText(transferId ?? '')],
  ['reverses', ({ reverses }) => csvText(reverses ?? '')],
  ['hold.id', ({ holdId }) => csvText(holdId ?? '')],
  ['hold.status', ({ holdStatus }) => holdStatus ?? ''],
  ['hold.remaining', ({ holdRemaining }) => String(holdRemaining ?? '')],
  ['hold.expiresAt', ({ holdExpiresAt }) => holdExpiresAt?.toISOString() ?? ''],
  ['limits.overdraftLimit', ({ overdraftLimit }) => String(overdraftLimit ?? '')],
  ['limits.maxBalance', ({ maxBalance }) => String(maxBalance ?? '')],
  ['limits.status', ({ status }) => status ?? ''],
];

export const exportForms: Record<ExportFormat, Form> = {
  // RFC 4180
  csv: {
    contentType: 'text/csv; charset=utf-8; header=present',
    head: `${COLUMNS.map(([name]) => name).join(',')}\r\n`,
    line: (entry) => `${COLUMNS.map(([, text]) => text(entry)).join(',')}\r\n`,
  },
  jsonl: {
    contentType: 'application/jsonl',
    head: '',
    line: (entry) => `${JSON.stringify(entryBody(entry))}\n`,
  },
};

/** An entry as all answers show it. */
export function entryBody(entry: Entry) {
  const { type, createdAt, recordedAt } = entry;
  return { eventId: eventId(entry), type, ...changeBody(entry), createdAt, recordedAt };
}

/**
 * Where a spreadsheet may see the beginning of a formula in a text that a client chose: at its own
 * beginning, and after what a spreadsheet of another locale takes for a separator. Quotes do not
 * help: that spreadsheet sees them in the middle of a cell.
 * https://owasp.org/www-community/attacks/CSV_Injection
 */
const FORMULA = /(^|[,;|\t\r\n،؛、，；])([\s"]*)([=+\-@\t\r＝＋－＠])/g;

/** With an apostrophe before each of them: it is shown as text. */
const csvText = (text: string): string => csvField(text.replace(FORMULA, "$1$2'$3"));

/** In JSON the character can be written in another way, so the value stays as it is. All of them are in strings. */
const csvJson = (json: string): string =>
  csvField(json.replace(FORMULA, (_, separator, rest, sign: string) => separator + rest + escaped(sign)));

const escaped = (character: string) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;

const csvField = (text: string) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

/**
 * How long a client may take over one piece of a few hundred kilobytes: only a few clients are
 * served at a time.
 */
const TAKEN_MS_MAX = 60_000;

/** Resolves when the client has taken what was written, or is gone. */
function taken(response: ServerResponse, msMax: number): Promise<void> {
  return new Promise((resolve) => {
    if (response.destroyed) return resolve(); // it will not close once more
    const timer = setTimeout(() => response.destroy(), msMax);
    const done = () => {
      clearTimeout(timer);
      response.off('drain', done).off('close', done); // a long export waits thousands of times
      resolve();
    };
    response.on('drain', done).on('close', done);
  });
}

/**
 * Writes each piece when the client has taken the one before. A client that is gone ends it; a failure breaks the connection,
 * so that half a file is never taken for a whole one.
 * @param mayGoOn is called before each piece; when it returns false, the connection is broken too.
 */
export async function streamExport(
  response: ServerResponse,
  format: ExportFormat,
  id: string,
  mayGoOn: () => boolean,
  pieces: Pieces,
  ...parts: (Iterable<readonly Entry[]> | AsyncIterable<readonly Entry[]>)[]
): Promise<void> {
  const { contentType, head, line } = exportForms[format];
  response.setHeader('content-type', contentType);
  response.setHeader('content-disposition', `attachment; filename="${id.replaceAll(':', '_')}.${format}"`);
  try {
    response.write(head);
    for (const part of parts) {
      for await (const entries of part) {
        if (!mayGoOn()) response.destroy();
        if (response.destroyed) return;
        let isTaken = true;
        for (const part of await pieces.run((pause) => encodeInPieces(entries, line, pause)))
          isTaken = response.write(part);
        if (!isTaken) await taken(response, TAKEN_MS_MAX);
      }
    }
    if (!response.destroyed) response.end();
  } catch (error) {
    response.destroy();
    throw error;
  }
}
