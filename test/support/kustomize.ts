// What `kubectl kustomize` makes of a folder, as far as deploy/kubernetes uses it: a field that this does not know is an
// error. Where the machine has kubectl, a test compares the two.
import { spawnSync } from 'node:child_process';
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { parseAllDocuments } from 'yaml';

// biome-ignore lint/suspicious/noExplicitAny: resources have members of every shape
export type Any = any;
export interface Resource {
  apiVersion: string;
  kind: string;
  metadata: { name: string; namespace?: string; labels?: Record<string, string> };
  [member: string]: Any;
}

export const hasKubectl = spawnSync('kubectl', ['kustomize', '--help']).status === 0;

export function kubectlKustomize(folder: string): Resource[] {
  const { status, stdout, stderr } = spawnSync('kubectl', ['kustomize', folder], { encoding: 'utf8', timeout: 60_000 });
  if (status !== 0) throw new Error(`kubectl kustomize ${folder}: ${stderr}`);
  return parseYaml(stdout);
}

/** As Kubernetes reads it, YAML 1.1: `off` is false, 0440 is octal. Anchors are no longer shared. */
export function parseYaml(text: string): Any[] {
  const documents = parseAllDocuments(text, { version: '1.1', schema: 'yaml-1.1', strict: true });
  if (!Array.isArray(documents)) return [];
  return documents.map((document) => {
    const [problem] = [...document.errors, ...document.warnings];
    if (problem) throw problem;
    return JSON.parse(JSON.stringify(document.toJS()));
  });
}

/** Of the folder with this kustomization.yaml, and of those that it names. */
export async function resourcesOf(folder: string): Promise<Resource[]> {
  const [given] = parseYaml(await readFile(path.join(folder, 'kustomization.yaml'), 'utf8'));
  const { apiVersion: _, kind: __, resources: named = [], namespace, images = [], patches = [], ...others } = given;
  const { generatorOptions = {}, secretGenerator = [], ...unknown } = others;
  if (Object.keys(unknown).length > 0) throw new Error(`${folder}: ${Object.keys(unknown)} in kustomization.yaml`);
  const resources = (await Promise.all(named.map((name: string) => read(path.join(folder, name))))).flat();
  for (const one of secretGenerator) resources.push(await secretOf(folder, one, generatorOptions));
  for (const { path: file, ...rest } of patches) {
    if (Object.keys(rest).length > 0) throw new Error(`${folder}: ${Object.keys(rest)} of a patch`);
    for (const patch of await read(path.join(folder, file))) {
      const target = resources.find((one) => keyOf(one) === keyOf(patch));
      if (!target) throw new Error(`${file}: there is no ${keyOf(patch)}`);
      Object.assign(target, merged(target, patch));
    }
  }
  for (const resource of resources) {
    if (namespace && resource.kind !== 'Namespace') resource.metadata.namespace = namespace;
    for (const container of containersOf(resource)) {
      const [name] = container.image.split(':');
      const image = images.find((one: Any) => one.name === name);
      if (image) container.image = `${image.newName}:${image.newTag}`;
    }
  }
  return resources;
}

async function read(place: string): Promise<Resource[]> {
  return (await stat(place)).isDirectory() ? resourcesOf(place) : parseYaml(await readFile(place, 'utf8'));
}

export const keyOf = ({ kind, metadata }: Resource) => `${kind} ${metadata.name}`;

async function secretOf(folder: string, { name, files, ...rest }: Any, options: Any): Promise<Resource> {
  const { disableNameSuffixHash, labels, ...others } = options;
  if (!disableNameSuffixHash || Object.keys({ ...rest, ...others }).length > 0)
    throw new Error(`${name}: only files, labels and disableNameSuffixHash are known`);
  const entries = files.map(async (entry: string) => {
    const [key = '', file = ''] = entry.split('=');
    return [key, (await readFile(path.join(folder, file))).toString('base64')];
  });
  const data = Object.fromEntries(await Promise.all(entries));
  return { apiVersion: 'v1', kind: 'Secret', metadata: { name, labels }, type: 'Opaque', data };
}

/** Lists whose members have a name of their own; all others are replaced. */
const MERGE_KEYS: Record<string, string> = { containers: 'name', initContainers: 'name', env: 'name', volumes: 'name' };

/** A strategic merge. */
function merged(old: Any, patch: Any, member = ''): Any {
  const key = MERGE_KEYS[member];
  if (Array.isArray(patch)) {
    if (!key || !Array.isArray(old)) return patch;
    const names = new Set(old.map((one) => one[key]));
    const changed = old.map((one) => {
      const change = patch.find((other) => other[key] === one[key]);
      return change ? merged(one, change) : one;
    });
    return [...patch.filter((one) => !names.has(one[key])), ...changed]; // new ones first, as kustomize has them
  }
  if (typeof patch !== 'object' || patch === null || typeof old !== 'object') return patch;
  const both = Object.entries(patch).map(([name, value]) => [name, merged(old[name], value, name)]);
  return { ...old, ...Object.fromEntries(both) };
}

/** Of a workload; undefined for anything else. */
export function podOf({ kind, spec }: Resource): Any {
  if (kind === 'Deployment' || kind === 'Job') return spec.template;
  return kind === 'CronJob' ? spec.jobTemplate.spec.template : undefined;
}

export function containersOf(resource: Resource): Any[] {
  const { initContainers = [], containers = [] } = podOf(resource)?.spec ?? {};
  return [...initContainers, ...containers];
}
