import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { until } from '../support/harness.ts';
import { needing } from '../support/needing.ts';

const SRC = fileURLToPath(new URL('../../src/', import.meta.url));
const FILES = ['bootstrap', 'run-script', 'install-dependencies', 'process-lock']
  .map((name) => `local/${name}.mjs`)
  .concat('shared/npm-gone.mjs');
/** The machine's own Node, which may be older than the one that runs this. */
const oldNode = (process.env.PATH ?? '')
  .split(path.delimiter)
  .map((folder) => path.join(folder, 'node'))
  .find((file) => /^v(18|20|22)\./.test(String(spawnSync(file, ['--version']).stdout)));

/** Says what it was called with. With `wait` it stays until SIGTERM, and notes that. */
const SCRIPT = `
  import { writeFileSync } from 'node:fs';
  const [major] = process.versions.node.split('.');
  console.log(JSON.stringify({ major, args: process.argv.slice(2), file: process.argv[1] }));
  if (process.argv[2] === 'wait') {
    process.on('SIGTERM', () => {
      writeFileSync('stopped', '');
      process.exit();
    });
    setInterval(() => {}, 1000);
  } else process.exitCode = Number(process.argv[2] ?? 0);
`;

// A project of its own whose one dependency is a folder, so that the real npm installs it without
// any registry.
let clone: string;
beforeEach(() => {
  clone = mkdtempSync(path.join(os.tmpdir(), 'highload-balance-test-'));
  for (const name of FILES) cpSync(path.join(SRC, name), path.join(clone, 'src', name));
  writeFileSync(inClone('script.mjs'), SCRIPT);
  mkdirSync(path.join(clone, 'dependency'));
  write('dependency/package.json', { name: 'dependency', version: '1.0.0' });
  write('package.json', {
    ...{ name: 'clone', version: '1.0.0', dependencies: { dependency: 'file:dependency' } },
    scripts: { script: 'node src/local/bootstrap.mjs script.mjs' },
  });
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

const ENVIRONMENT = { ...process.env, npm_config_offline: 'true', npm_execpath: '' };

async function bootstrap(
  args: string[] = [],
  node = process.execPath,
): Promise<{ code: number | null; output: string }> {
  const child = spawn(node, [inClone('src/local/bootstrap.mjs'), 'script.mjs', ...args], { env: ENVIRONMENT });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, output };
}

const said = (...args: string[]) => `${JSON.stringify({ major: '24', args, file: inClone('script.mjs') })}\n`;

it('installs what is missing, says so, and runs the script at once when nothing is missing', async () => {
  const first = await bootstrap();
  expect(first).toEqual({
    code: 0,
    output: expect.stringMatching(/^Installing dependencies .*\n( +still .*\n)*Installed in \d+ s\n\{/),
  });
  expect(installed()).toBe(true);
  expect(await bootstrap(['7', '--x'])).toEqual({ code: 7, output: said('7', '--x') });
});

needing('Node 18, 20 or 22 on the PATH', oldNode !== undefined).it(
  'runs the script on the Node that was installed, with its arguments and exit code',
  async () => {
    await bootstrap();
    mkdirSync(inClone('node_modules/.bin'), { recursive: true });
    symlinkSync(process.execPath, inClone('node_modules/.bin/node'));
    expect(await bootstrap(['7', '--x'], oldNode)).toEqual({ code: 7, output: said('7', '--x') });
  },
);

it.each([
  ['npm', 'SIGTERM'],
  ['npm', 'SIGKILL'],
  ['its shell', 'SIGTERM'],
  ['its shell', 'SIGKILL'],
] as const)('ends the script when %s gets %s', async (target, signal) => {
  await bootstrap();
  const npmRun = spawn('npm', ['run', '--silent', 'script', '--', 'wait'], { cwd: clone, env: ENVIRONMENT });
  await once(npmRun.stdout, 'data');
  const [shell] = spawnSync('pgrep', ['-P', String(npmRun.pid)])
    .stdout.toString()
    .split('\n');
  process.kill(Number(target === 'npm' ? npmRun.pid : shell), signal);
  await until('the script was told to end', () => existsSync(inClone('stopped')));
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
  expect((await bootstrap()).output).toBe(said());

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
