// What a command prints is its result. console.log ignores what could not be written; here the
// command fails, so that a full disk is no empty list and a lost token no success.
import { SettingsError } from '../shared/config.ts';

/** A pipe reports after it was written to. Whose reader has gone, such as head, needs no sentence. */
export function failWithOutput(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') console.error(sentenceOf(error));
    process.exit(1);
  });
}

const sentenceOf = (error: unknown) => `The output could not be written: ${(error as Error).message}.`;

/** @throws SettingsError if the output cannot be written to. */
export function print(text: string): void {
  write(`${text}\n`);
}

/** As {@link print}, without a line feed. @returns false while the reader is behind: wait for `drain`. */
export function write(text: string): boolean {
  try {
    return process.stdout.write(text);
  } catch (error) {
    throw new SettingsError(sentenceOf(error));
  }
}

/** For a terminal: queues and messages may be named by others, with escape sequences. */
export function printable(text: string): string {
  return text.replace(/\p{C}/gu, (character) => `\\u{${(character.codePointAt(0) as number).toString(16)}}`);
}

/**
 * As one argument of a command that a person copies into a shell, whatever it contains; with `--`
 * before it where it would be read as an option.
 */
export function argument(text: string): string {
  const before = text.startsWith('-') ? '-- ' : '';
  if (/^[\w.:/@%+=-]+$/.test(text)) return before + text;
  return `${before}'${printable(text).replaceAll("'", "'\\''")}'`;
}
