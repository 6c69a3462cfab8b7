// deploy/kubernetes is what Kubernetes takes and means what docs/kubernetes.md says. kubernetes.test.ts runs it.
import { cp, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DRAIN_MS_MAX, settingNames } from '../../src/shared/config.ts';
import { cleanUp, createFolder } from '../support/harness.ts';
import { problemsOf } from '../support/kubernetes-schemas.ts';
import {
  type Any,
  containersOf,
  hasKubectl,
  keyOf,
  kubectlKustomize,
  parseYaml,
  podOf,
  type Resource,
  resourcesOf,
} from '../support/kustomize.ts';
import { needing } from '../support/needing.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const read = (file: string) => readFile(path.join(ROOT, file), 'utf8');
const FOLDERS = ['base', 'logins', 'monitoring', 'example'];
const SECRETS = [
  'owner-database-url',
  ...['api', 'worker', 'operator'].flatMap((who) => [`${who}-database-url`, `${who}-amqp-url`]),
];
/** What a stop takes at most, and some for the process to end. */
const STOP_S = 25 + 2;
/** Endpoints were seen to lag by 1.5 s. */
const DRAIN_MS_WANTED = 3 * 1500;

let folder: string;
let all: Resource[];
/** Containers of the example with their pods. */
let containers: { resource: Resource; pod: Any; container: Any; title: string }[];
let dockerfile: string;

beforeAll(async () => {
  folder = await createFolder();
  await cp(path.join(ROOT, 'deploy/kubernetes'), folder, { recursive: true });
  for (const name of SECRETS) await writeFile(path.join(folder, 'example/secrets', name), `url of ${name}`);
  all = await resourcesOf(path.join(folder, 'example'));
  containers = all.flatMap((resource) =>
    containersOf(resource).map((container) => {
      return { resource, pod: podOf(resource), container, title: `${keyOf(resource)} ${container.name}` };
    }),
  );
  dockerfile = await read('Dockerfile');
});
afterAll(cleanUp);

const named = (kind: string, name: string) => all.find((one) => keyOf(one) === `${kind} ${name}`) as Resource;
const ofKind = (kind: string) => all.filter((one) => one.kind === kind);
const isSubset = (labels: Record<string, string>, of: Record<string, string>) =>
  Object.entries(labels).every(([key, value]) => of[key] === value);

describe('the schemas', () => {
  it.each(FOLDERS)('of Kubernetes and the Prometheus Operator allow every member of %s', async (name) => {
    expect(await problemsOf(await resourcesOf(path.join(folder, name)))).toEqual([]);
  });

  it('find a wrong type, a missing member, an unknown one and an unknown kind', async () => {
    const wrong = structuredClone(named('Deployment', 'balance-api'));
    wrong.spec.replicas = '2';
    wrong.spec.selector = undefined;
    wrong.spec.template.spec.containers[0].readinesProbe = {};
    const problems = (await problemsOf([wrong, { ...wrong, kind: 'Deploiment' }])).join('\n');
    for (const what of ['replicas must be integer', 'required property selector', 'readinesProbe', 'Deploiment'])
      expect(problems).toContain(what);
  });
});

needing('kubectl', hasKubectl).it('kubectl composes the same resources', async () => {
  const sorted = (resources: Resource[]) => resources.sort((one, other) => keyOf(one).localeCompare(keyOf(other)));
  for (const name of FOLDERS) {
    const place = path.join(folder, name);
    expect(sorted(kubectlKustomize(place))).toEqual(sorted(await resourcesOf(place)));
  }
});

it('each pod keeps to the restricted profile of Pod Security, and a read-only file system', () => {
  expect(containers.map(({ title }) => title)).toHaveLength(8);
  for (const { pod, container, title } of containers) {
    const { spec } = pod;
    expect(spec, title).toMatchObject({ automountServiceAccountToken: false, enableServiceLinks: false });
    expect(spec.securityContext, title).toEqual({
      ...{ runAsNonRoot: true, runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000 },
      seccompProfile: { type: 'RuntimeDefault' },
    });
    expect(container.securityContext, title).toEqual({
      ...{ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true },
      capabilities: { drop: ['ALL'] },
    });
    for (const { secret, ...other } of spec.volumes)
      expect([secret.defaultMode, Object.keys(other)]).toEqual([0o440, ['name']]);
    expect(container.resources, title).toEqual({
      requests: { cpu: expect.any(String), memory: expect.any(String) },
      limits: { memory: expect.any(String) }, // a limit of the CPU would pause the event loop
    });
  }
});

it('the image is that of this release, and has what the commands call', async () => {
  const { version } = JSON.parse(await read('package.json'));
  const ignored = (await read('.dockerignore')).split('\n');
  expect(dockerfile).toMatch(/^COPY --chmod=755 src src$/m);
  expect(dockerfile).toMatch(/^USER 1000:1000$/m);
  for (const { container, title } of containers) {
    expect(container.image, title).toBe(`registry.example.com/highload-balance:${version}`);
    const [program, file, ...rest] = container.command;
    if (program === 'sleep') continue;
    expect([program, rest], title).toEqual(['node', []]);
    expect(await read(file), title).not.toBe('');
    expect(
      ignored.filter((place) => place !== '' && file.startsWith(place)),
      title,
    ).toEqual([]);
  }
  for (const name of ['base', 'logins'])
    for (const container of (await resourcesOf(path.join(folder, name))).flatMap(containersOf))
      expect(container.image).toBe(`highload-balance:${version}`);
});

it('each variable is a setting, and each secret one that the example makes', () => {
  const known = new Set([...settingNames.api, ...settingNames.worker]);
  const ofLogins = ['API_DATABASE_URL', 'WORKER_DATABASE_URL', 'OPERATOR_DATABASE_URL'];
  for (const { pod, container, title } of containers) {
    for (const { name, value } of container.env) {
      expect([...known, ...ofLogins], title).toContain(name.replace(/_FILE$/, ''));
      if (!name.endsWith('_FILE')) continue;
      const mount = container.volumeMounts.find(({ mountPath }: Any) => value.startsWith(`${mountPath}/`));
      const { secret } = pod.spec.volumes.find((volume: Any) => volume.name === mount.name);
      const made = named('Secret', secret.secretName);
      expect(Object.keys(made?.data ?? {}), `${title} ${name}`).toContain(value.slice(mount.mountPath.length + 1));
    }
  }
});

const servers = ['api', 'relay', 'worker'];

describe.each(servers)('the %s', (component) => {
  const deployment = () => named('Deployment', `balance-${component}`);
  const container = () => containersOf(deployment())[0];

  it('is asked on the port that it listens on, and longer than it takes to answer', () => {
    const { env, ports, startupProbe, livenessProbe, readinessProbe } = container();
    const port = env.find(({ name }: Any) => name === (component === 'worker' ? 'HEALTH_PORT' : 'PORT'));
    expect(ports).toEqual([{ name: 'http', containerPort: Number(port.value) }]);
    expect(dockerfile).toContain(`EXPOSE ${port.value}\n`);
    for (const probe of [startupProbe, livenessProbe]) expect(probe.httpGet).toEqual({ path: '/livez', port: 'http' });
    expect(readinessProbe.httpGet).toEqual({ path: '/readyz', port: 'http' });
    expect(readinessProbe.timeoutSeconds).toBeGreaterThanOrEqual(6);
    expect(livenessProbe.periodSeconds * livenessProbe.failureThreshold).toBeGreaterThanOrEqual(60);
  });

  it('is replaced one pod after the other, each with the time that it takes to stop', () => {
    const { spec } = deployment();
    expect(spec.strategy).toEqual({ rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } });
    expect(spec.template.spec.terminationGracePeriodSeconds).toBeGreaterThanOrEqual(STOP_S);
    expect(spec.selector.matchLabels).toEqual(spec.template.metadata.labels);
    const others = all.filter((one) => one !== deployment() && podOf(one));
    for (const other of others)
      expect(isSubset(spec.selector.matchLabels, podOf(other).metadata.labels), keyOf(other)).toBe(false);
  });

  it('keeps all pods but one when nodes are drained', () => {
    const { spec } = named('PodDisruptionBudget', `balance-${component}`);
    expect(spec).toMatchObject({ maxUnavailable: 1, unhealthyPodEvictionPolicy: 'AlwaysAllow' });
    expect(spec.selector).toEqual(deployment().spec.selector);
    expect(deployment().spec.replicas).toBeGreaterThan(1);
  });
});

it('only the API drains, for longer than endpoints lag; relaying is for the relay alone', () => {
  const setting = (component: string, variable: string): string | undefined => {
    const [{ env }] = containersOf(named('Deployment', `balance-${component}`)) as [Any];
    return env.find(({ name }: Any) => name === variable)?.value;
  };
  expect(Number(setting('api', 'DRAIN_MS_MIN'))).toBeGreaterThanOrEqual(DRAIN_MS_WANTED);
  expect(Number(setting('api', 'DRAIN_MS_MIN'))).toBeLessThanOrEqual(DRAIN_MS_MAX);
  for (const component of ['relay', 'worker']) expect(setting(component, 'DRAIN_MS_MIN')).toBeUndefined();
  expect([setting('api', 'RELAY'), setting('relay', 'RELAY')]).toEqual(['off', 'only']);
});

it('the Service and the Ingress lead to the API, and never to its metrics or its health', () => {
  const { spec } = named('Service', 'balance-api');
  expect(spec.selector).toEqual(named('Deployment', 'balance-api').spec.selector.matchLabels);
  expect(spec.ports).toEqual([{ name: 'http', port: 80, targetPort: 'http' }]);
  const [rule] = named('Ingress', 'balance-api').spec.rules;
  for (const { path: place, pathType, backend } of rule.http.paths) {
    expect(backend.service).toEqual({ name: 'balance-api', port: { name: 'http' } });
    const matches = (asked: string) => asked === place || (pathType === 'Prefix' && asked.startsWith(`${place}/`));
    expect(['/metrics', '/readyz', '/livez', '/'].filter(matches)).toEqual([]);
  }
  expect(rule.http.paths.map((one: Any) => one.path)).toEqual([
    '/v1',
    '/docs',
    '/console',
    '/openapi.json',
    '/asyncapi.json',
  ]);
});

it('network policies close everything, and open what each pod needs', () => {
  const pods = all.flatMap((one) => (podOf(one) ? [podOf(one).metadata.labels] : []));
  const selects = ({ spec }: Resource, labels: Record<string, string>) => {
    const { matchLabels = {}, matchExpressions = [] } = spec.podSelector;
    const isIn = ({ key, operator, values }: Any) => operator === 'In' && values.includes(labels[key] ?? '');
    return isSubset(matchLabels, labels) && matchExpressions.every(isIn);
  };
  const egress = (labels: Record<string, string>) =>
    ofKind('NetworkPolicy')
      .filter((one) => selects(one, labels))
      .flatMap(({ spec }) => (spec.egress ?? []).flatMap((rule: Any) => rule.ports.map(({ port }: Any) => port)));
  const ingress = (labels: Record<string, string>) =>
    ofKind('NetworkPolicy')
      .filter((one) => selects(one, labels) && one.spec.ingress)
      .map(({ metadata }) => metadata.name);
  const none = named('NetworkPolicy', 'balance-none');
  expect(none.spec).toMatchObject({ policyTypes: ['Ingress', 'Egress'] });
  expect(none.spec.ingress ?? none.spec.egress).toBeUndefined();
  const seen = Object.fromEntries(
    pods.map((labels) => {
      expect(selects(none, labels)).toBe(true);
      return [labels['app.kubernetes.io/component'], [new Set(egress(labels)), ingress(labels).sort()]];
    }),
  );
  const [base, broker] = [
    [53, 5432],
    [5671, 5672, 15672],
  ];
  expect(seen).toEqual({
    migrate: [new Set(base), []],
    logins: [new Set(base), []],
    operator: [new Set([...base, ...broker]), []],
    api: [new Set([...base, ...broker]), ['balance-clients', 'balance-ingress', 'balance-metrics']],
    relay: [new Set([...base, ...broker]), ['balance-metrics']],
    worker: [new Set([...base, ...broker]), ['balance-metrics']],
  });
});

it('what is applied first is what the Jobs need', () => {
  const first = all.filter(({ metadata }) => metadata.labels?.['balance-stage'] === 'prepare').map(({ kind }) => kind);
  expect(new Set(first)).toEqual(new Set(['Namespace', 'Secret', 'NetworkPolicy', 'Job']));
  for (const kind of new Set(first)) expect(first.filter((one) => one === kind)).toHaveLength(ofKind(kind).length);
  for (const { metadata, spec } of ofKind('Job'))
    expect(spec.template.metadata.labels).toMatchObject({
      'app.kubernetes.io/name': 'highload-balance',
      ...metadata.labels,
    });
});

it('the alert rules are those of docs/monitoring/alerts.yml, and the jobs those that they name', async () => {
  const [{ groups }] = parseYaml(await read('docs/monitoring/alerts.yml'));
  expect(named('PrometheusRule', 'balance').spec).toEqual({ groups });
  const jobs = ofKind('PodMonitor').map(({ spec }) => spec.podMetricsEndpoints[0].relabelings[0].replacement);
  const [{ scrape_configs: scraped }] = parseYaml(await read('docs/monitoring/prometheus.yml'));
  expect(jobs).toEqual(scraped.map(({ job_name: name }: Any) => name));
  const targets = ofKind('PodMonitor').flatMap(({ spec }) => spec.selector.matchExpressions[0].values);
  expect(targets.sort()).toEqual([...servers].sort());
});

it('the commands of docs/kubernetes.md name what there is', async () => {
  const page = await read('docs/kubernetes.md');
  const commands = [...page.matchAll(/^ {4}(kubectl .*)$/gm)].map(([, command]) => command as string);
  expect(commands.length).toBeGreaterThan(10);
  const found = (pattern: RegExp) => commands.flatMap((text) => [...text.matchAll(pattern)].map(([, match]) => match));
  const jobs = [
    ...found(/\bjob\/([\w-]+)/g),
    ...found(/delete job (.*?)(?: --|$)/g).flatMap((names) => names?.split(' ')),
  ];
  for (const job of jobs.filter((name) => name !== 'at-work')) expect(named('Job', job as string), job).toBeDefined();
  for (const name of found(/\bdeployment\/([\w-]+)/g)) expect(named('Deployment', name as string), name).toBeDefined();
  for (const name of found(/\bcronjob\/([\w-]+)/g)) expect(named('CronJob', name as string), name).toBeDefined();
  for (const label of found(/ -l (\S+)/g)) {
    const [key = '', value] = (label as string).split('=');
    expect(all.filter(({ metadata }) => metadata.labels?.[key] === value).length, label).toBeGreaterThan(0);
  }
  const operator = containersOf(named('CronJob', 'balance-operator')).map(({ name }) => name);
  for (const name of found(/ -c (\S+)/g)) expect(operator).toContain(name);
  for (const file of found(/ node (src\S+)/g)) expect(await read(file as string)).not.toBe('');
  expect(new Set(found(/ -n (\S+)/g))).toEqual(new Set([named('Namespace', 'balance').metadata.name]));
});
