// The lines of a file or of standard input, one by one: input of any size needs little memory.
import { createReadStream } from 'node:fs';
import { StringDecoder } from 'node:string_decoder';
import { SettingsError } from '../shared/config.ts';

/** Far longer than any valid line. */
const LINE_CHARACTERS_MAX = 10_000;

/** Standard input, as commands name it. */
export const STDIN = '-';

export interface Line {
  text: string;
  /** The file and the number of the line, from 1. */
  where: string;
}

/**
 * Lines that are not blank, without their ends. @param path a file, or `-` for standard input.
 * @throws SettingsError when it cannot be read, or a line is too long.
 */
export async function* readLines(path: string): AsyncGenerator<Line> {
  const name = path === STDIN ? 'standard input' : path;
  const decoder = new StringDecoder('utf8');
  let rest = '';
  let number = 0;
  for await (const chunk of chunksOf(path, name)) {
    const texts = (rest + decoder.write(chunk)).split('\n');
    rest = texts.pop() ?? '';
    for (const text of texts) {
      number += 1;
      if (text.trim() !== '') yield { text: text.trimEnd(), where: `${name} line ${number}` };
    }
    if (rest.length > LINE_CHARACTERS_MAX) {
      throw new SettingsError(`${name} line ${number + 1} is longer than ${LINE_CHARACTERS_MAX} characters`);
    }
  }
  rest += decoder.end();
  if (rest.trim() !== '') yield { text: rest.trimEnd(), where: `${name} line ${number + 1}` };
}

async function* chunksOf(path: string, name: string): AsyncGenerator<Buffer> {
  try {
    yield* path === STDIN ? process.stdin : createReadStream(path);
  } catch (cause) {
    throw new SettingsError(`${name} cannot be read: ${(cause as Error).message}`, { cause });
  }
}

/** In pages of at most `size`, the last of them perhaps empty. */
export async function* inPages<T>(items: AsyncIterable<T>, size: number): AsyncGenerator<T[]> {
  let page: T[] = [];
  for await (const item of items) {
    page.push(item);
    if (page.length < size) continue;
    yield page;
    page = [];
  }
  yield page;
}
