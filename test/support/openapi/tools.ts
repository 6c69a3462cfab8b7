// The foreign tools that read the OpenAPI document: installed when first used, loaded by name,
// because the types of this project are checked without them.
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { installDependencies } from '../../../src/local/install-dependencies.mjs';

const FOLDER = fileURLToPath(new URL('.', import.meta.url));
export const TOOLS_FOLDER = `${FOLDER}node_modules`;
/** npm, on a busy machine. */
export const INSTALL_TIMEOUT_MS = 300_000;

/** @throws when npm fails. */
export async function installTools(): Promise<void> {
  const problem = await installDependencies(FOLDER);
  if (problem) throw new Error(problem);
}

const require = createRequire(import.meta.url);

/** A package of CommonJS. */
export const load = <Package>(name: string): Package => require(name) as Package;
/** Any other one. */
export const loadModule = async <Package>(name: string): Promise<Package> =>
  (await import(import.meta.resolve(name))) as Package;
