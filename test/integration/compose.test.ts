// docker-compose.yml as Docker reads it, skipped where `docker compose` is missing; and as it runs,
// where the tests use Docker: the image is built, the system brought up, and looked at from within
// its containers.
import { execFile, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import amqp from 'amqplib';
import { afterAll, beforeAll, expect, inject, it } from 'vitest';
import { freePort } from '../../src/local/free-port.ts';
import { settingNames } from '../../src/shared/config.ts';
import { cleanUp, createAccount, onCleanUp, send, until } from '../support/harness.ts';
import { needing } from '../support/needing.ts';

interface Service {
  cap_add?: string[];
  cap_drop?: string[];
  command?: string[];
  environment?: Record<string, string>;
  healthcheck?: { test?: string[]; disable?: boolean };
  hostname?: string;
  networks?: Record<string, unknown>;
  network_mode?: string;
  profiles?: string[];
  read_only?: boolean;
  volumes?: { type: string; source: string; read_only?: boolean }[];
  ports?: { host_ip?: string; published: string; target: number }[];
  privileged?: boolean;
  restart?: string;
  security_opt?: string[];
  user?: string;
}

const file = fileURLToPath(new URL('../../docker-compose.yml', import.meta.url));
// Without the settings of the person who runs this: an empty environment, and no .env file.
const read = (more: Record<string, string> = {}) =>
  spawnSync(
    'docker',
    ['compose', '-f', file, '--env-file', '/dev/null', '--profile', '*', 'config', '--format', 'json'],
    {
      env: { PATH: process.env.PATH, HOME: process.env.HOME, ...more },
      encoding: 'utf8',
    },
  );
const config = read();
const hasCompose = spawnSync('docker', ['compose', 'version']).status === 0;

needing('the command docker compose', hasCompose).describe('docker-compose.yml', () => {
  it('is accepted by docker compose without a word of warning', () => {
    expect(config.stderr).toBe('');
    expect(config.status).toBe(0);
  });

  const services = (of = config): Record<string, Service> => JSON.parse(of.stdout).services;
  const namesOf = (that: (service: Service) => boolean | undefined) =>
    Object.entries(services()).flatMap(([name, service]) => (that(service) ? name : []));

  it('opens nothing to other machines, and the API where that is asked for', () => {
    const open = (of = config) =>
      Object.entries(services(of)).flatMap(([name, { ports = [] }]) =>
        ports.filter((port) => port.host_ip !== '127.0.0.1').map((port) => `${name} ${port.published}`),
      );
    expect(open()).toEqual([]);
    expect(open(read({ API_ADDRESS: '0.0.0.0' }))).toEqual(['api 3000']);
  });

  it('lets only those reach a server that need it', () => {
    const inNetwork = (network: string) => namesOf(({ networks = {} }) => network in networks);
    expect(inNetwork('database')).toEqual(['api', 'keys', 'migrate', 'operator', 'postgres', 'worker']);
    expect(inNetwork('broker')).toEqual(['api', 'operator', 'rabbitmq', 'worker']);
    expect(inNetwork('metrics')).toEqual(['api', 'prometheus', 'worker']);
    expect(inNetwork('dashboard')).toEqual(['grafana', 'prometheus']);
    expect(inNetwork('default')).toEqual([]);
    expect(namesOf(({ network_mode: mode }) => mode === 'none')).toEqual(['roles', 'secrets']);
  });

  it('knows no password, and gives each service its own secrets alone', () => {
    expect(config.stdout).not.toMatch(/:\/\/[^/"]*:[^/"]*@/);
    for (const [name, { environment = {} }] of Object.entries(services()))
      for (const variable of Object.keys(environment)) expect(variable, name).not.toMatch(/PASS(WORD)?$|SECRET$/);
    const volumes = Object.entries(services()).flatMap(([name, service]) =>
      (service.volumes ?? [])
        .filter(({ source }) => source.endsWith('-secrets') || source === 'postgres-socket')
        .map(({ source, read_only: isReadOnly = false }) => `${source} ${name}${isReadOnly ? '' : ', to write'}`),
    );
    const kept = ['kept', 'roles', 'rabbitmq', 'owner', 'api', 'worker', 'operator', 'grafana'];
    expect(volumes.sort()).toEqual(
      [
        ...kept.map((name) => `${name}-secrets secrets, to write`),
        ...['roles', 'rabbitmq', 'api', 'worker', 'operator', 'grafana'].map((name) => `${name}-secrets ${name}`),
        ...['keys', 'migrate'].map((name) => `owner-secrets ${name}`),
        ...['postgres', 'roles'].map((name) => `postgres-socket ${name}, to write`),
      ].sort(),
    );
  });

  it('restarts and checks the health of all that stays', () => {
    const once = ['secrets', 'roles', 'migrate', 'keys', 'operator'];
    for (const [name, service] of Object.entries(services())) {
      if (once.includes(name)) {
        expect(service.restart, name).toBe('no');
        continue;
      }
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
      expect(service.read_only, name).toBe(isServer ? undefined : true);
      // Root without a capability owns the new volumes of the secrets, and nothing more.
      expect(service.user, name).toBe({ secrets: '0:0', roles: 'postgres' }[name]);
    }
  });

  it('gives the processes only settings that they know', () => {
    const { api, worker } = services();
    const settingsOf = (service?: Service) =>
      Object.keys(service?.environment ?? {}).map((name) => name.replace(/_URL_FILE$/, '_URL'));
    for (const name of settingsOf(api)) expect(settingNames.api).toContain(name);
    for (const name of settingsOf(worker)) expect(settingNames.worker).toContain(name);
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

const hasDocker = hasCompose && inject('backend') === 'docker';
needing('a Docker engine, with docker compose', hasDocker).describe('docker compose up', () => {
  const project = `highload-balance-test-${randomUUID().slice(0, 8)}`;
  let url: string;
  let compose: (...args: string[]) => Promise<string>;

  beforeAll(async () => {
    const folder = await mkdtemp(path.join(tmpdir(), project));
    onCleanUp(() => rm(folder, { recursive: true }));
    // An image of the test's own: the usual name may be in use.
    const image = { image: project };
    const own = path.join(folder, 'own.json');
    const ofImage = ['secrets', 'migrate', 'keys', 'operator', 'api', 'worker'];
    await writeFile(own, JSON.stringify({ services: Object.fromEntries(ofImage.map((name) => [name, image])) }));
    const ports = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
    const [PORT, POSTGRES_PORT, AMQP_PORT, MANAGEMENT_PORT] = ports.map(String);
    const { PATH, HOME, DOCKER_HOST } = process.env;
    const env = { PATH, HOME, DOCKER_HOST, PORT, POSTGRES_PORT, AMQP_PORT, MANAGEMENT_PORT };
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

  const psql = async (query: string) =>
    (await compose('exec', '-T', 'postgres', 'psql', '-U', 'postgres', '-d', 'balance', '-tAc', query))
      .trim()
      .split('\n');

  it('serves who has a key, records, and proves it', async () => {
    expect((await send(url, 'GET', '/v1/accounts/alice')).status).toBe(401);
    const token = await compose('run', '--rm', 'keys', 'create', 'me', '--scopes', 'read,write,admin');
    const headers = { authorization: `Bearer ${token.trim()}` };
    await createAccount(url, 'alice', 5, headers);
    const entries = async () => (await send(url, 'GET', '/v1/accounts/alice/entries', undefined, headers)).body;
    await until('it is recorded', async () => (await entries()).ledgerVersion === 1);
    expect((await entries()).entries).toMatchObject([
      { amount: 5, actor: 'me' },
      { type: 'account.opened', actor: 'me' },
    ]);
    expect(await compose('run', '--rm', 'operator', 'verify')).toMatch(/\nverified\n/);
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
    expect(await psql(users)).toEqual(['balance_api_login', 'balance_worker_login']);
    const superusers = 'SELECT rolname FROM pg_roles WHERE rolsuper';
    expect(await psql(superusers)).toEqual(['postgres']);
    const owner = `SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'ledger'`;
    expect(await psql(owner)).toEqual(['balance']);
  });

  it('lets a subscriber of this machine in by what it shows, and with nothing else', async () => {
    const url = (await compose('run', '--rm', 'secrets', 'show', 'subscriber')).trim();
    const connection = await amqp.connect(url);
    await connection.close();
    for (const user of ['guest:guest', 'balance:balance', 'subscriber:subscriber', 'operator:operator']) {
      const guessed = new URL(url);
      [guessed.username, guessed.password] = user.split(':') as [string, string];
      await expect(amqp.connect(guessed.href), user).rejects.toThrow(/ACCESS.REFUSED/);
    }
  });

  it('comes up again with the same secrets after its servers were killed', async () => {
    const show = () => compose('run', '--rm', 'secrets', 'show', 'management');
    const before = await show();
    await compose('kill', 'postgres', 'rabbitmq');
    await compose('up', '--detach', '--wait', '--no-build');
    expect(await show()).toBe(before);
    expect(await compose('run', '--rm', 'operator', 'verify')).toMatch(/\nverified\n/);
  });

  it('takes new passwords everywhere once the kept ones are gone', async () => {
    const show = () => compose('run', '--rm', 'secrets', 'show', 'subscriber');
    const before = (await show()).trim();
    await compose('down', '--timeout', '10');
    await promisify(execFile)('docker', ['volume', 'rm', `${project}_kept-secrets`]);
    await compose('up', '--detach', '--wait', '--no-build');
    const after = (await show()).trim();
    expect(after).not.toBe(before);
    await (await amqp.connect(after)).close();
    await expect(amqp.connect(before)).rejects.toThrow(/ACCESS.REFUSED/);
    expect(await compose('run', '--rm', 'operator', 'verify')).toMatch(/\nverified\n/);
  });

  it('has an image without what starts everything on one machine, of a user that a platform can tell from root', async () => {
    expect((await compose('exec', '-T', 'api', 'ls', 'src')).trim().split('\n')).toEqual([
      'api',
      'cli',
      'compose',
      'shared',
      'worker',
    ]);
    expect(await compose('run', '--rm', 'operator', '--help')).not.toMatch(/^ {2}start /m);
    const { stdout } = await promisify(execFile)('docker', [
      'image',
      'inspect',
      '--format',
      '{{.Config.User}}',
      project,
    ]);
    expect(stdout.trim()).toBe('1000:1000');
  });

  it('keeps the broker out of the network of the database', async () => {
    const look = 'getent hosts postgres || echo unknown';
    expect((await compose('exec', '-T', 'rabbitmq', 'sh', '-c', look)).trim()).toBe('unknown');
  });
});
