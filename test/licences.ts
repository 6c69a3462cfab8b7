// npm run licences: writes docs/licences.md, the packages that come with the service and their
// licences, from the lock file. Fails where one is not among those that we may pass on with a
// notice and nothing more.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { takesNoOptions } from '../src/cli/command-line.ts';

const ALLOWED = ['0BSD', 'Apache-2.0', 'BSD-2-Clause', 'BSD-3-Clause', 'BlueOak-1.0.0', 'ISC', 'MIT', 'Python-2.0'];

interface LockFile {
  packages: Record<string, { version?: string; license?: string; dev?: boolean }>;
}

export interface Licensed {
  name: string;
  version: string;
  licence: string;
}

export const LOCK_FILE = fileURLToPath(new URL('../package-lock.json', import.meta.url));
export const LICENCES_FILE = fileURLToPath(new URL('../docs/licences.md', import.meta.url));

/** What `npm ci --omit=dev` installs, by name. */
export function productionPackages({ packages }: LockFile): Licensed[] {
  const found = Object.entries(packages)
    .filter(([place, { dev }]) => place !== '' && !dev)
    .map(([place, { version = '', license = 'none stated' }]) => ({
      name: place.slice(place.lastIndexOf('node_modules/') + 'node_modules/'.length),
      version,
      licence: license,
    }));
  const unique = new Map(found.map((one) => [`${one.name} ${one.version}`, one]));
  return [...unique].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, one]) => one);
}

/** Those that a person has to look at. */
export const notAllowed = (all: readonly Licensed[]) => all.filter(({ licence }) => !ALLOWED.includes(licence));

export function licencesDocument(all: readonly Licensed[]): string {
  const rows = all.map(({ name, version, licence }) => `| ${name} | ${version} | ${licence} |`);
  return [
    '# Licences',
    '',
    'The packages in the container image: what `npm ci --omit=dev` installs. Written by `npm run licences`.',
    '',
    '| package | version | licence |',
    '|---|---|---|',
    ...rows,
    '',
  ].join('\n');
}

export const readLockFile = (): LockFile => JSON.parse(readFileSync(LOCK_FILE, 'utf8'));

if (process.argv[1] === import.meta.filename) {
  takesNoOptions(`usage: npm run licences

Writes docs/licences.md, the packages that come with the service and their licences. Exit code 1 where a licence is not
allowed.`);
  const all = productionPackages(readLockFile());
  for (const { name, licence } of notAllowed(all)) {
    console.error(`${name} is licensed under ${licence}: replace it, or allow the licence in test/licences.ts`);
    process.exitCode = 1;
  }
  writeFileSync(LICENCES_FILE, licencesDocument(all));
  console.log(`Written: docs/licences.md, ${all.length} packages`);
}
