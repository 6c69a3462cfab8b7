// The package of a release: packed by npm, linted, and tried in two empty projects, of ECMAScript
// modules and of CommonJS, before it is put where a person finds it. npm test tries more of it:
// test/integration/client-package.test.ts.
import { createHash } from 'node:crypto';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { createProject, type Packed, packInto, productionPackages, run } from '../support/packed-package.ts';

const TRY_TIMEOUT_MS = 60_000;

/** @returns what was made, in a sentence. */
export async function makePackage(root: string, version: string): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'highload-balance-release-'));
  try {
    const packed = await packInto(folder);
    await lint(packed);
    await tryIn(path.join(folder, 'modules'), 'module', packed, version);
    await tryIn(path.join(folder, 'commonjs'), 'commonjs', packed, version);
    const name = path.basename(packed.archive);
    await copyFile(packed.archive, path.join(root, name));
    const hash = createHash('sha256').update(await readFile(packed.archive));
    return `${name}, ${Math.ceil(packed.bytes / 1000)} kB, sha256 ${hash.digest('hex')}`;
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Suggestions count too: there is none today. */
async function lint(packed: Packed): Promise<void> {
  const { messages, pkg } = await publint({ pkgDir: packed.folder, pack: false, strict: true });
  if (messages.length === 0) return;
  const said = messages.map((message) => `  ${formatMessage(message, pkg, { color: false })}`);
  throw new Error(`publint finds in the package:\n${said.join('\n')}`);
}

/**
 * Loads every entry, and asks the command for its version and the help of a command that is
 * compiled.
 */
async function tryIn(folder: string, type: 'module' | 'commonjs', packed: Packed, version: string): Promise<void> {
  const project = await createProject(folder, type, packed, await productionPackages());
  const { exports } = JSON.parse(await readFile(path.join(packed.folder, 'package.json'), 'utf8'));
  const entries = Object.keys(exports).map((entry) => path.posix.join('highload-balance', entry));
  const load = (entry: string) => {
    if (type === 'commonjs') return `require('${entry}');`;
    return `await import('${entry}'${entry.endsWith('.json') ? ", { with: { type: 'json' } }" : ''});`;
  };
  await writeFile(path.join(project, 'try.js'), entries.map(load).join('\n'));
  const node = async (...command: string[]) =>
    (await run(process.execPath, command, { cwd: project, timeout: TRY_TIMEOUT_MS })).stdout.trim();
  await node('try.js');
  const command = path.join('node_modules', 'highload-balance', 'src', 'cli', 'highload-balance.mjs');
  const said = await node(command, '--version');
  if (said !== version) throw new Error(`highload-balance --version of the package says "${said}", not ${version}`);
  await node(command, 'migrate', '--help');
}
