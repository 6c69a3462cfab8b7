// Checks resources against the schemas of Kubernetes and of the Prometheus Operator, as kubernetes-models has them: its
// validators know types, required members and allowed values, its TypeScript types which members there are at all.
import { execFile } from 'node:child_process';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { keyOf, type Resource } from './kustomize.ts';

const INSTALLED = fileURLToPath(new URL('../../node_modules', import.meta.url));
const TIMEOUT_MS = 120_000;

const moduleOf = (apiVersion: string) =>
  `${apiVersion.startsWith('monitoring.coreos.com/') ? '@kubernetes-models/prometheus-operator' : 'kubernetes-models'}/${apiVersion}`;

/** One sentence each; empty if all are valid. */
export async function problemsOf(resources: readonly Resource[]): Promise<string[]> {
  const invalid = await Promise.all(resources.map(invalidity));
  return [...invalid.flat(), ...(await unknownMembers(resources))];
}

async function invalidity(resource: Resource): Promise<string[]> {
  try {
    const models = await import(moduleOf(resource.apiVersion));
    new models[resource.kind](resource).validate();
    return [];
  } catch (error) {
    return [`${keyOf(resource)}: ${(error as Error).message}`];
  }
}

/** The API server refuses them, or drops them silently. The compiler finds them in literals. */
async function unknownMembers(resources: readonly Resource[]): Promise<string[]> {
  const folder = await mkdtemp(path.join(tmpdir(), 'highload-balance-manifests-'));
  try {
    await symlink(INSTALLED, path.join(folder, 'node_modules'));
    await writeFile(path.join(folder, 'package.json'), '{"type":"module"}');
    const source = resources.map(
      (resource, index) =>
        `import type { I${resource.kind} as T${index} } from '${moduleOf(resource.apiVersion)}';\n` +
        `export const r${index}: T${index} = ${JSON.stringify(resource)};\n`,
    );
    await writeFile(path.join(folder, 'resources.ts'), source.join(''));
    const options = ['--noEmit', '--strict', '--skipLibCheck', '--module', 'nodenext', '--target', 'es2024'];
    const tsc = path.join(INSTALLED, '.bin', 'tsc');
    await promisify(execFile)(tsc, [...options, '--types', '', 'resources.ts'], { cwd: folder, timeout: TIMEOUT_MS });
    return [];
  } catch (error) {
    const { stdout = '' } = error as { stdout?: string };
    if (!stdout.includes('error TS')) throw error;
    return stdout.split('\n').flatMap((line) => /^resources.*: error (TS.*)/.exec(line)?.[1] ?? []);
  } finally {
    await rm(folder, { recursive: true });
  }
}
