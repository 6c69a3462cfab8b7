// The files of migrations/: numbered scripts, which run once, and function files and grants.sql,
// which are declarative.
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { MigrationError } from './migration-error.ts';

export const MIGRATIONS_FOLDER = fileURLToPath(new URL('../../migrations/', import.meta.url));

export interface NumberedScript {
  version: number;
  name: string;
  sql: string;
}

/** A file that is applied again whenever its text changes. */
export interface DeclaredFile {
  /** Below the folder: `functions/apply_changes.sql`, `grants.sql`. */
  name: string;
  sql: string;
  sha256: string;
}

export interface MigrationFiles {
  folder: string;
  /** By version, from 1 without a gap. */
  scripts: NumberedScript[];
  /** By name. */
  functions: DeclaredFile[];
  grants: DeclaredFile;
}

/** @throws MigrationError when a number is missing. */
export async function readMigrationFiles(folder: string = MIGRATIONS_FOLDER): Promise<MigrationFiles> {
  const scripts: NumberedScript[] = [];
  for (const file of await readdir(folder)) {
    const [, version, name] = /^(\d+)\.do\.(.+)\.sql$/.exec(file) ?? [];
    if (version === undefined || name === undefined) continue;
    scripts.push({ version: Number(version), name, sql: await readText(path.join(folder, file)) });
  }
  if (scripts.length === 0) throw new MigrationError(`no migration scripts in ${folder}`);
  scripts.sort((a, b) => a.version - b.version);
  // postgrator only looks above the current version, so it would silently skip a gap.
  scripts.forEach(({ version }, place) => {
    if (version > place + 1) throw new MigrationError(`migration script ${place + 1} is missing in ${folder}`);
  });
  const functions = (await readdir(path.join(folder, 'functions'))).filter((name) => name.endsWith('.sql')).sort();
  return {
    folder,
    scripts,
    functions: await Promise.all(functions.map((name) => readDeclared(folder, `functions/${name}`))),
    grants: await readDeclared(folder, 'grants.sql'),
  };
}

async function readDeclared(folder: string, name: string): Promise<DeclaredFile> {
  const sql = await readText(path.join(folder, name));
  return { name, sql, sha256: createHash('sha256').update(sql).digest('hex') };
}

/** A checkout with other line endings is the same text. */
async function readText(file: string): Promise<string> {
  return (await readFile(file, 'utf8')).replaceAll('\r\n', '\n');
}
