// The containers of deploy/kubernetes as processes, in the order that docs/kubernetes.md says: on a database as an
// administrator hands it over, with the secrets that the page makes, asked as their probes ask.
import { spawnSync } from 'node:child_process';
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openClient } from '../../src/shared/database.ts';
import { type ProxiedConnection, startProxy, type TcpProxy } from '../chaos/proxy.ts';
import { startDisposablePostgres } from '../support/backends.ts';
import { cleanUp, createBroker, createFolder, onCleanUp, send, until } from '../support/harness.ts';
import { keyOf, type Resource, resourcesOf } from '../support/kustomize.ts';
import { type Place, type Pod, runContainer, startPod } from '../support/pods.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
/** Readiness waits for what others start. */
const TRIES_MAX = 12;
/** As long as endpoints were seen to lag, and as many connections. */
const LATE_MS = 1500;
const LATE_CONNECTIONS = 100;

let resources: Resource[];
let place: Place;
let admin: pg.Client;
let postgres: TcpProxy;
/** Connections stay open, and nothing moves in them. */
let isHeld = false;
const pods: Record<string, Pod> = {};
let headers: Record<string, string>;

const named = (kind: string, name: string) => resources.find((one) => keyOf(one) === `${kind} ${name}`) as Resource;
const deployment = (component: string) => named('Deployment', `balance-${component}`);
const start = async (component: string) => {
  const pod = await startPod(deployment(component), place);
  await pod.untilProbed('startupProbe');
  return pod;
};

function hold(connection: ProxiedConnection): void {
  connection.setMode('toServer', 'hold');
  connection.setMode('toClient', 'hold');
}

/** The first block of the page in this language. */
async function shown(language: string): Promise<string> {
  const page = await readFile(path.join(ROOT, 'docs/kubernetes.md'), 'utf8');
  return new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, 'ms').exec(page)?.[1] ?? '';
}

beforeAll(async () => {
  const server = await startDisposablePostgres();
  onCleanUp(() => server.stop());
  admin = await openClient(server.url, 'test');
  onCleanUp(() => admin.end());
  postgres = await startProxy({ port: Number(new URL(server.url).port) }, (connection) => isHeld && hold(connection));
  onCleanUp(() => postgres.close());
  const folder = await createFolder();
  await cp(path.join(ROOT, 'deploy/kubernetes'), path.join(folder, 'deploy/kubernetes'), { recursive: true });
  const overlay = path.join(folder, 'deploy/kubernetes/production');
  await cp(path.join(folder, 'deploy/kubernetes/example'), overlay, { recursive: true });

  const script = (await shown('sh')).replace(/^POSTGRES=.*$/m, `POSTGRES=127.0.0.1:${postgres.port}/balance`);
  const { status, stderr } = spawnSync('sh', ['-euc', script], { cwd: folder, encoding: 'utf8' });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const broker = createBroker();
  for (const who of ['api', 'worker', 'operator']) {
    const file = path.join(overlay, 'secrets', `${who}-amqp-url`);
    expect(await readFile(file, 'utf8')).toMatch(
      new RegExp(`^amqps://${who}:[0-9a-f]{48}@rabbitmq.example.internal:5671$`),
    );
    await writeFile(file, broker.url);
  }
  const { password } = new URL(await readFile(path.join(overlay, 'secrets/owner-database-url'), 'utf8'));
  for (const statement of (await shown('sql')).split(/;\n/))
    await admin.query(statement.replace("'...'", `'${password}'`));

  resources = await resourcesOf(overlay);
  place = {
    secrets: path.join(folder, 'mounted'),
    variables: {
      HOST: '127.0.0.1',
      HEALTH_HOST: '127.0.0.1',
      AMQP_NAMESPACE: broker.namespace,
      AMQP_MANAGEMENT_URL: '',
    },
  };
  for (const { kind, metadata, data } of resources) {
    if (kind !== 'Secret') continue;
    await mkdir(path.join(place.secrets, metadata.name), { recursive: true });
    for (const [key, bytes] of Object.entries(data))
      await writeFile(path.join(place.secrets, metadata.name, key), Buffer.from(bytes as string, 'base64'));
  }
});
afterAll(cleanUp);

async function runJob(name: string, ...containers: string[]): Promise<string> {
  let printed = '';
  for (const container of containers) {
    const { code, out, err } = await runContainer(named('Job', name), container, place).whenEnded;
    expect({ container, code, err }).toEqual({ container, code: 0, err: '' });
    printed += out;
  }
  return printed;
}

/** In the pod of an operator. */
const exec = (container: string, ...command: string[]) =>
  runContainer(named('CronJob', 'balance-operator'), container, place, command).whenEnded;

it('what is applied before its database is ready is alive and not ready, and becomes ready by itself', async () => {
  for (const component of ['api', 'relay', 'worker']) pods[component] = await start(component);
  for (const pod of Object.values(pods)) {
    expect(await pod.probe('readinessProbe')).toBe(false);
    expect(await pod.probe('livenessProbe')).toBe(true);
  }
  expect(await runJob('balance-migrate', 'migrate')).toMatch(/^schema version \d+$/m);
  expect(await runJob('balance-logins', 'migrate', 'logins')).toMatch(
    /nothing to do\n(balance_\w+_login: created.*\n){3}$/,
  );
  for (const pod of Object.values(pods)) await pod.untilProbed('readinessProbe', TRIES_MAX);
  expect(await runJob('balance-logins', 'migrate', 'logins')).toMatch(/(balance_\w+_login: password set.*\n){3}$/);
});

it('an update goes through API, relay and worker, and the operator makes the key and the proof', async () => {
  const { api } = pods as { api: Pod };
  expect((await send(api.url, 'GET', '/v1/accounts/alice')).status).toBe(401);
  const key = await exec('owner', 'node', 'src/cli/keys.ts', 'create', 'me', '--scopes', 'read,write,admin');
  expect(key).toMatchObject({ code: 0, out: expect.stringMatching(/^hlb_\w+\n$/) });
  headers = { authorization: `Bearer ${key.out.trim()}` };
  expect((await send(api.url, 'POST', '/v1/accounts', { id: 'alice' }, headers)).status).toBe(201);
  const update = await send(api.url, 'POST', '/v1/balance-updates', { accountId: 'alice', amount: 7 }, headers);
  expect(update.status).toBe(200);
  await until('the ledger has it', async () => {
    const { body } = await send(api.url, 'GET', '/v1/accounts/alice/entries', undefined, headers);
    return body.ledgerVersion === 1;
  });
  expect((await send(api.url, 'GET', '/readyz')).body.relay).toEqual({ active: false });
  expect(await exec('operator', 'node', 'src/cli/verify.ts')).toMatchObject({
    code: 0,
    out: expect.stringMatching(/verified\n$/),
  });
  const users = `SELECT DISTINCT usename FROM pg_stat_activity WHERE datname = 'balance' ORDER BY 1`;
  expect((await admin.query(users)).rows.map(({ usename }) => usename)).toEqual([
    'balance_api_login',
    'balance_worker_login',
  ]);
});

describe('while PostgreSQL answers nothing', () => {
  it('each pod says within the time of its probe that it is not ready, stays alive, and recovers by itself', async () => {
    isHeld = true;
    postgres.connections().forEach(hold);
    for (const pod of Object.values(pods)) {
      const askedAtMs = performance.now();
      const { status } = await send(pod.url, 'GET', '/readyz', undefined, { connection: 'close' });
      const timeoutMs = 1000 * deployment('api').spec.template.spec.containers[0].readinessProbe.timeoutSeconds;
      expect(status).toBe(503);
      expect(performance.now() - askedAtMs).toBeLessThan(timeoutMs);
      expect(await pod.probe('livenessProbe')).toBe(true);
    }
    isHeld = false;
    for (const connection of postgres.connections()) connection.cut();
    for (const pod of Object.values(pods)) await pod.untilProbed('readinessProbe', TRIES_MAX);
  });
});

describe('a pod that stops', () => {
  it('refuses no connection while endpoints lag, and ends well within its grace period', async () => {
    const api = await start('api');
    await api.untilProbed('readinessProbe', TRIES_MAX);
    const stopped = api.stop();
    const stoppedAtMs = performance.now();
    // Each by a connection of its own. First nothing comes, for longer than a stop without a drain lasts.
    const late = Array.from({ length: LATE_CONNECTIONS }, async (_, index) => {
      await delay(LATE_MS / 3 + ((2 / 3) * LATE_MS * index) / LATE_CONNECTIONS);
      const answer = await send(api.url, 'GET', '/v1/accounts/alice', undefined, {
        ...headers,
        connection: 'close',
      }).catch((error) => error.cause);
      return answer.status ?? answer.code;
    });
    expect([...Map.groupBy(await Promise.all(late), (status) => status).keys()]).toEqual([200]);
    expect(performance.now() - stoppedAtMs).toBeGreaterThan(LATE_MS * 0.9);
    const { code, tookMs } = await stopped;
    expect(code).toBe(0);
    const { terminationGracePeriodSeconds } = deployment('api').spec.template.spec;
    expect(tookMs).toBeLessThan(terminationGracePeriodSeconds * 1000 - 5000);
  });

  it('hands the relay over to the other one', async () => {
    const { relay } = pods as { relay: Pod };
    const isActive = async ({ url }: Pod) => (await send(url, 'GET', '/readyz')).body.relay.active;
    expect(await isActive(relay)).toBe(true);
    const other = await start('relay');
    await other.untilProbed('readinessProbe', TRIES_MAX);
    expect(await isActive(other)).toBe(false);
    expect((await relay.stop()).code).toBe(0);
    await until('the other one is active', () => isActive(other), 10_000);
  });

  it('of the worker ends at once', async () => {
    const { worker } = pods as { worker: Pod };
    const { code, tookMs } = await worker.stop();
    expect(code).toBe(0);
    expect(tookMs).toBeLessThan(10_000);
  });
});
