// A copy of the project to break: its sources, with the dependencies of the original.
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Edit } from './mutant.ts';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const PARTS = ['migrations', 'src', 'test', 'package.json', 'tsconfig.json'];
/** Of packages in the copied folders, which have dependencies of their own. */
const LEFT_OUT = /(^|\/)node_modules$/;

export interface Copy {
  folder: string;
  remove(): void;
}

/** @throws when an edit does not find its text exactly as often as it says. */
export function makeCopy(edits: readonly Edit[]): Copy {
  const folder = mkdtempSync(path.join(tmpdir(), 'highload-balance-mutant-'));
  const remove = () => rmSync(folder, { recursive: true, force: true });
  try {
    for (const part of PARTS) {
      const filter = (source: string) => !LEFT_OUT.test(source);
      cpSync(path.join(ROOT, part), path.join(folder, part), { recursive: true, filter });
    }
    symlinkSync(path.join(ROOT, 'node_modules'), path.join(folder, 'node_modules'));
    for (const one of edits) apply(folder, one);
  } catch (error) {
    remove();
    throw error;
  }
  return { folder, remove };
}

function apply(folder: string, { file, find, put, times = 1 }: Edit): void {
  const place = path.join(folder, file);
  const parts = readFileSync(place, 'utf8').split(find);
  if (parts.length - 1 !== times) {
    throw new Error(`${file} holds this ${parts.length - 1} times instead of ${times}:\n${find}`);
  }
  writeFileSync(place, parts.join(put));
}
