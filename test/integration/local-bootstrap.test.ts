import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';

const LOCAL = fileURLToPath(new URL('../../src/local/', import.meta.url));
const SCRIPTS = ['bootstrap.mjs', 'install-dependencies.mjs', 'process-lock.mjs'];

// A project of its own whose one dependency is a folder, so that the real npm installs it without any registry.
let clone: string;
beforeEach(() => {
  clone = mkdtempSync(path.join(os.tmpdir(), 'highload-balance-test-'));
  mkdirSync(path.join(clone, 'src/local'), { recursive: true });
  for (const name of SCRIPTS) cpSync(path.join(LOCAL, name), path.join(clone, 'src/local', name));
  mkdirSync(path.join(clone, 'dependency'));
  write('dependency/package.json', { name: 'dependency', version: '1.0.0' });
  write('package.json', { name: 'clone', version: '1.0.0', dependencies: { dependency: 'file:dependency' } });
  npm('install', '--package-lock-only');
});
afterEach(() => rmSync(clone, { recursive: true, force: true }));

const inClone = (name: string) => path.join(clone, name);
const write = (name: string, content: unknown) => writeFileSync(inClone(name), JSON.stringify(content));
const installed = () => existsSync(inClone('node_modules/dependency/package.json'));

function npm(...args: string[]): void {
  const { status, stderr } = spawnSync('npm', [...args, '--offline', '--no-audit', '--no-fund'], { cwd: clone });
  expect(stderr.toString(), `npm ${args[0]}`).not.toMatch(/npm error/);
  expect(status).toBe(0);
}

async function bootstrap(env: Record<string, string> = {}): Promise<{ code: number | null; output: string }> {
  const child = spawn(process.execPath, [inClone('src/local/bootstrap.mjs')], {
    env: { ...process.env, npm_config_offline: 'true', npm_execpath: '', ...env },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, output };
}

it('installs what is missing, says so, and is silent when nothing is missing', async () => {
  const first = await bootstrap();
  expect(first).toEqual({
    code: 0,
    output: expect.stringMatching(/^Installing dependencies .*\nInstalled in \d+ s\n$/),
  });
  expect(installed()).toBe(true);
  expect(await bootstrap()).toEqual({ code: 0, output: '' });
});

it('installs once when started twice at once', async () => {
  const outputs = (await Promise.all([bootstrap(), bootstrap()])).map(({ output }) => output).join('');
  expect(outputs.match(/Installing dependencies/g)).toHaveLength(1);
  expect(installed()).toBe(true);
});

it('installs when the lock file is newer and differs, not when a checkout only renewed its time', async () => {
  await bootstrap();
  const later = new Date(Date.now() + 60_000);
  utimesSync(inClone('package-lock.json'), later, later);
  expect((await bootstrap()).output).toBe('');

  const lock = JSON.parse(readFileSync(inClone('package-lock.json'), 'utf8'));
  lock.packages.dependency.version = '1.0.1';
  write('package-lock.json', lock);
  write('dependency/package.json', { name: 'dependency', version: '1.0.1' });
  utimesSync(inClone('package-lock.json'), later, later);
  expect((await bootstrap()).output).toMatch(/Installing dependencies/);
});

it('ends with a sentence when the installation fails', async () => {
  write('package-lock.json', {});
  const { code, output } = await bootstrap();
  expect(code).toBe(1);
  expect(output).toMatch(/Installing the dependencies failed \(npm ci: exit code 1\): see above/);
});
