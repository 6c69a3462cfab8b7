// Parses the options of a command or script: answers --help and reports wrong options before
// anything runs.
import type { ParseArgsOptionsConfig } from 'node:util';
import { readArguments } from './arguments.ts';

/** As in shells, for a command that was called incorrectly. */
export const CALLED_WRONGLY = 2;

/**
 * The parsed command line. Ends the process after --help or -h, and with exit code 2 if it is
 * wrong.
 * @param help begins with "usage: ".
 */
export function commandLine<const Options extends ParseArgsOptionsConfig>(options: Options, help: string) {
  const { values } = parseStrictly({ ...options, help: { type: 'boolean', short: 'h' } }, help);
  if (!(values as { help?: boolean }).help) return values;
  console.log(help);
  process.exit();
}

/** For a command that only takes settings. */
export const takesNoOptions = (help: string): void => void commandLine({}, help);

/**
 * The whole number that an option gives, or the fallback. Ends the process with exit code 2 if it
 * is not one.
 */
export function wholeOption<Fallback extends number | undefined>(
  name: string,
  value: string | undefined,
  fallback: Fallback,
  max: number,
): number | Fallback {
  if (value === undefined) return fallback;
  if (/^[1-9]\d{0,15}$/.test(value) && Number(value) <= max) return Number(value);
  return refuse(`--${name} ${value}: it must be a whole number from 1 to ${max}.`);
}

/** Ends the process. */
export function refuse(sentence: string): never {
  console.error(`${sentence}\n--help says more.`);
  process.exit(CALLED_WRONGLY);
}

function parseStrictly<Options extends ParseArgsOptionsConfig>(options: Options, help: string) {
  try {
    return readArguments({ options });
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${help}`);
    process.exit(CALLED_WRONGLY);
  }
}
