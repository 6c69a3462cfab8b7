import { rename, rm, writeFile } from 'node:fs/promises';

/**
 * Replaced as a whole, so that no reader sees half of it. Readable by every account: only the
 * containers that may know its content mount the volume, each under its own account.
 */
export async function replaceFile(file: string, text: string): Promise<void> {
  await rm(`${file}.new`, { force: true }); // of a run that was interrupted
  await writeFile(`${file}.new`, text, { mode: 0o444 });
  await rename(`${file}.new`, file);
}
