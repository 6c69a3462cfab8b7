// The package as npm packs it, in empty projects: with nothing beside it, or with what npm would
// install for it.
import { execFile } from 'node:child_process';
import { cp, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const INSTALLED = path.join(ROOT, 'node_modules');

export interface Packed {
  bytes: number;
  /** Names of its files, as in the package. */
  files: string[];
  /** Where it was unpacked. */
  folder: string;
  /** What npm packed. */
  archive: string;
}

/** Builds it, in the clone's dist/ too: one at a time. */
export async function packInto(folder: string): Promise<Packed> {
  const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', folder], {
    cwd: ROOT,
    timeout: 120_000,
  });
  const [packed] = JSON.parse(stdout.slice(stdout.search(/^\[/m))) as [
    { filename: string; size: number; files: { path: string }[] },
  ];
  await run('tar', ['-xzf', packed.filename], { cwd: folder });
  const files = packed.files.map((file) => file.path);
  const archive = path.join(folder, packed.filename);
  return { bytes: packed.size, files, folder: path.join(folder, 'package'), archive };
}

/** An empty project that has the package and these others. */
export async function createProject(
  folder: string,
  type: 'module' | 'commonjs',
  packed: Packed,
  others: readonly string[],
): Promise<string> {
  const modules = path.join(folder, 'node_modules');
  await mkdir(modules, { recursive: true });
  await writeFile(path.join(folder, 'package.json'), JSON.stringify({ name: 'project', private: true, type }));
  await cp(packed.folder, path.join(modules, 'highload-balance'), { recursive: true });
  for (const name of others) {
    await mkdir(path.dirname(path.join(modules, name)), { recursive: true });
    await symlink(path.join(INSTALLED, name), path.join(modules, name));
  }
  return folder;
}

/** What npm installs for it, as the lock file says: none of it is for developers. */
export async function productionPackages(): Promise<string[]> {
  const lock = JSON.parse(await readFile(path.join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean; devOptional?: boolean }>;
  };
  const there = new Set(await readdir(INSTALLED, { recursive: false }));
  return Object.entries(lock.packages).flatMap(([place, { dev, devOptional }]) => {
    const name = /^node_modules\/((?:@[^/]+\/)?[^/]+)$/.exec(place)?.[1];
    return name && !dev && !devOptional && there.has(name.split('/')[0] as string) ? [name] : [];
  });
}

/** Types that a declaration of the entry names, and that the entry does not export. */
export async function unexportedTypes(packed: Packed, entry: string): Promise<string[]> {
  const folder = path.join(packed.folder, 'dist');
  const files = (await readdir(folder, { recursive: true })).filter((file) => file.endsWith('.d.ts'));
  const texts = await Promise.all(files.map((file) => readFile(path.join(folder, file), 'utf8')));
  const plain = texts.map((text) => text.replaceAll(/\/\*.*?\*\/|\/\/.*?$/gms, ''));
  const types = new Set<string>();
  const declarations = new Map<string, string>();
  // Each up to the next one that begins a line.
  const declaration =
    /^export (?:declare )?(interface|type|class|function) (\w+)(.*?)(?=^(?:import|export|declare|interface|type)\b|(?!.))/gms;
  for (const [, kind, name = '', text = ''] of plain.join('\n').matchAll(declaration)) {
    if (kind !== 'function') types.add(name);
    declarations.set(name, text);
  }
  const exported = exportedNames(plain[files.indexOf(entry)] as string);
  const named = exported.flatMap((name) => declarations.get(name)?.match(/\b[A-Z]\w+/g) ?? []);
  return [...new Set(named)].filter((name) => types.has(name) && !exported.includes(name)).sort();
}

function exportedNames(declarations: string): string[] {
  const lists = [...declarations.matchAll(/^export (?:type )?\{([^}]*)\}/gm)].flatMap(([, names = '']) =>
    names.split(','),
  );
  const own = [...declarations.matchAll(/^export (?:declare )?(?:interface|type|class|function) (\w+)/gm)];
  return [...lists.map((name) => name.replace(/\btype /, '').trim()), ...own.map(([, name = '']) => name)];
}
