// docker-compose.yml as Docker reads it, skipped where `docker compose` is missing; and as it runs, where the tests use
// Docker: the image is built, the system brought up, and looked at from within its containers.
import { execFile, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { freePort } from '../../src/local/free-port.ts';
import { settingNames } from '../../src/shared/config.ts';
import { cleanUp, createAccount, onCleanUp, send, until } from '../harness.ts';

interface Service {
  cap_add?: string[];
  cap_drop?: string[];
  command?: string[];
  environment?: Record<string, string>;
  healthcheck?: { test?: string[]; disable?: boolean };
  hostname?: string;
  profiles?: string[];
  read_only?: boolean;
  volumes?: { type: string; source: string; read_only?: boolean }[];
  ports?: { host_ip?: string; published: string; target: number }[];
  privileged?: boolean;
  restart?: string;
  security_opt?: string[];
}

const file = fileURLToPath(new URL('../../docker-compose.yml', import.meta.url));
// Without the settings of whoever runs this: an empty environment, and no .env file.
const command = ['compose', '-f', file, '--env-file', '/dev/null', '--profile', 'observability', 'config'];
const config = spawnSync('docker', [...command, '--format', 'json'], {
  env: { PATH: process.env.PATH, HOME: process.env.HOME },
  encoding: 'utf8',
});
const isMissing = spawnSync('docker', ['compose', 'version']).status !== 0;

describe.skipIf(isMissing)('docker-compose.yml', () => {
  it('is accepted by docker compose without a word of warning', () => {
    expect(config.stderr).toBe('');
    expect(config.status).toBe(0);
  });

  const services = (): Record<string, Service> => JSON.parse(config.stdout).services;

  it('opens nothing but the API to other machines', () => {
    const open = Object.entries(services()).flatMap(([name, { ports = [] }]) =>
      ports.filter((port) => port.host_ip !== '127.0.0.1').map((port) => `${name} ${port.published}`),
    );
    expect(open).toEqual(['api 3000']);
  });

  it('restarts and checks the health of all that stays', () => {
    const { migrate, logins, ...rest } = services();
    expect([migrate?.restart, logins?.restart]).toEqual(['no', 'no']);
    for (const [name, service] of Object.entries(rest)) {
      expect(service.restart, name).toBe('unless-stopped');
      expect(service.healthcheck?.test?.length, name).toBeGreaterThan(1);
    }
  });

  it('gives no container a right that it does not need', () => {
    for (const [name, service] of Object.entries(services())) {
      expect(service.security_opt, name).toEqual(['no-new-privileges:true']);
      expect(service.cap_drop, name).toEqual(['ALL']);
      expect(service.privileged, name).toBeUndefined();
      const isServer = ['postgres', 'rabbitmq'].includes(name); // they start as root, to leave it
      expect(service.cap_add, name).toEqual(
        isServer ? ['CHOWN', 'DAC_OVERRIDE', 'FOWNER', 'SETGID', 'SETUID'] : undefined,
      );
    }
  });

  it('gives the processes only settings that they know', () => {
    const { api, worker } = services();
    for (const name of Object.keys(api?.environment ?? {})) expect(settingNames.api).toContain(name);
    for (const name of Object.keys(worker?.environment ?? {})) expect(settingNames.worker).toContain(name);
  });

  it('starts Prometheus and Grafana on demand only, with files of this repository that they cannot change', () => {
    const onDemand = Object.entries(services()).filter(([, { profiles }]) => profiles?.includes('observability'));
    expect(onDemand.map(([name]) => name).sort()).toEqual(['grafana', 'prometheus']);
    for (const [name, { volumes = [], read_only: isReadOnly }] of onDemand) {
      expect(isReadOnly, name).toBe(true);
      const files = volumes.filter(({ type }) => type === 'bind');
      expect(files.length, name).toBeGreaterThan(1);
      for (const { source, read_only: isFixed } of files)
        expect([existsSync(source), isFixed], source).toEqual([true, true]);
    }
  });

  it('keeps the broker under one host name, which its data is bound to', () => {
    expect(services().rabbitmq?.hostname).toBe('rabbitmq');
  });
});

// Building the image takes a minute where its layers are not there yet.
const UP_TIMEOUT_MS = 600_000;

describe.skipIf(isMissing || inject('backend') !== 'docker')('docker compose up', () => {
  const project = `highload-balance-test-${randomUUID().slice(0, 8)}`;
  let url: string;
  let compose: (...args: string[]) => Promise<string>;

  beforeAll(async () => {
    const folder = await mkdtemp(path.join(tmpdir(), project));
    onCleanUp(() => rm(folder, { recursive: true }));
    // An image of the test's own: the usual name may be in use.
    const image = { image: project };
    const own = path.join(folder, 'own.json');
    await writeFile(own, JSON.stringify({ services: { migrate: image, keys: image, api: image, worker: image } }));
    const ports = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
    const [PORT, POSTGRES_PORT, AMQP_PORT, MANAGEMENT_PORT] = ports.map(String);
    const passwords = {
      POSTGRES_PASSWORD: 'p1',
      RABBITMQ_PASSWORD: 'p2',
      API_POSTGRES_PASSWORD: 'p3',
      WORKER_POSTGRES_PASSWORD: 'p4',
    };
    const { PATH, HOME, DOCKER_HOST } = process.env;
    const env = { PATH, HOME, DOCKER_HOST, PORT, POSTGRES_PORT, AMQP_PORT, MANAGEMENT_PORT, ...passwords };
    compose = async (...args) => {
      const command = ['compose', '-p', project, '-f', file, '-f', own, '--env-file', '/dev/null', ...args];
      return (await promisify(execFile)('docker', command, { env, timeout: UP_TIMEOUT_MS })).stdout;
    };
    onCleanUp(() => promisify(execFile)('docker', ['image', 'rm', '--force', project]));
    onCleanUp(() => compose('down', '--volumes', '--timeout', '1'));
    await compose('up', '--detach', '--wait');
    url = `http://127.0.0.1:${PORT}`;
  }, UP_TIMEOUT_MS);
  afterAll(cleanUp, UP_TIMEOUT_MS);

  it('serves who has a key, records, and proves it', async () => {
    expect((await send(url, 'GET', '/v1/accounts/alice')).status).toBe(401);
    const token = await compose('run', '--rm', 'keys', 'create', 'me', '--scopes', 'read,write,admin');
    const headers = { authorization: `Bearer ${token.trim()}` };
    await createAccount(url, 'alice', 5, headers);
    const entries = async () => (await send(url, 'GET', '/v1/accounts/alice/entries', undefined, headers)).body;
    await until('it is recorded', async () => (await entries()).ledgerVersion === 1);
    expect((await entries()).entries).toMatchObject([{ amount: 5, actor: 'me' }]);
    expect(await compose('run', '--rm', 'migrate', 'node', 'src/cli/verify.ts')).toMatch(/\nverified\n/);
  });

  it.each(['api', 'worker'])(
    'runs the %s without a right, on a file system that it cannot write to',
    async (service) => {
      const look = `id -u; grep -E 'Cap(Eff|Bnd)|NoNewPrivs' /proc/1/status; for place in /app /app/src /usr/local/bin /home/node; do touch $place/x 2>&1; done; echo done`;
      const seen = (await compose('exec', '-T', service, 'sh', '-c', look)).trim().split('\n');
      expect(seen).toEqual([
        '1000',
        'CapEff:\t0000000000000000',
        'CapBnd:\t0000000000000000',
        'NoNewPrivs:\t1',
        ...['/app', '/app/src', '/usr/local/bin', '/home/node'].map(
          (place) => `touch: cannot touch '${place}/x': Read-only file system`,
        ),
        'done',
      ]);
    },
  );

  it('lets neither API nor worker be the owner of the database', async () => {
    const users = `SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name ~ '^highload-balance' ORDER BY 1`;
    const psql = ['exec', '-T', 'postgres', 'psql', '-U', 'balance', '-tAc', users];
    expect((await compose(...psql)).trim().split('\n')).toEqual(['balance_api_login', 'balance_worker_login']);
  });
});
