// docker-compose.yml as Docker reads it. Skipped where `docker compose` is missing; needs no engine and starts nothing.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { settingNames } from '../../src/shared/config.ts';

interface Service {
  command?: string[];
  environment?: Record<string, string>;
  healthcheck?: { test?: string[]; disable?: boolean };
  hostname?: string;
  ports?: { host_ip?: string; published: string; target: number }[];
  restart?: string;
}

const file = fileURLToPath(new URL('../../docker-compose.yml', import.meta.url));
// Without the settings of whoever runs this: an empty environment, and no .env file.
const config = spawnSync('docker', ['compose', '-f', file, '--env-file', '/dev/null', 'config', '--format', 'json'], {
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

  it('restarts and checks the health of all but the migration', () => {
    const { migrate, ...rest } = services();
    expect(migrate?.restart).toBe('no');
    for (const [name, service] of Object.entries(rest)) {
      expect(service.restart, name).toBe('unless-stopped');
      expect(service.healthcheck?.test?.length, name).toBeGreaterThan(1);
    }
  });

  it('gives the processes only settings that they know', () => {
    const { api, worker } = services();
    for (const name of Object.keys(api?.environment ?? {})) expect(settingNames.api).toContain(name);
    for (const name of Object.keys(worker?.environment ?? {})) expect(settingNames.worker).toContain(name);
  });

  it('keeps the broker under one host name, which its data is bound to', () => {
    expect(services().rabbitmq?.hostname).toBe('rabbitmq');
  });
});
