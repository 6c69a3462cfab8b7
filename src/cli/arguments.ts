// Reads a command line strictly.
import { type ParseArgsConfig, parseArgs } from 'node:util';

/** Thrown when the command was called incorrectly; says how to call it. */
export class UsageError extends Error {}

/**
 * @throws UsageError for an option that is not known, lacks its value or has one, and for an
 * unexpected argument.
 */
export function readArguments<const Config extends ParseArgsConfig>(config: Config) {
  try {
    return parseArgs(config);
  } catch (cause) {
    throw new UsageError((cause as Error).message, { cause });
  }
}
