// Builds what npm packs, into dist/: JavaScript of everything, because Node strips no types under node_modules, and the
// types of the client. A clone needs none of it: there Node runs the TypeScript as it is.
import { execFileSync } from 'node:child_process';
import { cpSync, rmSync } from 'node:fs';
import path from 'node:path';
import { takesNoOptions } from './src/cli/command-line.ts';

takesNoOptions(`usage: npm run build

Builds what npm packs into dist/: JavaScript of everything, and the types of the client. npm pack runs it by itself.`);

const ROOT = import.meta.dirname;
const DIST = path.join(ROOT, 'dist');
/** The compiler's own business, what installs the dependencies of a clone, and the command, which is packed where it is. */
const LEFT_OUT = /\.ts$|\.d\.mts$|tsconfig\.json$|(bootstrap|run-script|install-dependencies|highload-balance)\.mjs$/;

rmSync(DIST, { recursive: true, force: true });
for (const project of ['tsconfig.build.json', 'src/client']) {
  execFileSync(path.join(ROOT, 'node_modules', '.bin', 'tsc'), ['--project', project], { cwd: ROOT, stdio: 'inherit' });
}
cpSync(path.join(ROOT, 'src'), DIST, { recursive: true, filter: (file) => !LEFT_OUT.test(file) });
