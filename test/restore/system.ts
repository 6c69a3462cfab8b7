// The service as an operator runs it: API and worker with their URLs in files, a RabbitMQ with a
// user for each, and the commands that the runbooks call to stop and start them.
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import type pg from 'pg';
import { freePort } from '../../src/local/free-port.ts';
import { type PrivateBroker, startPrivateBroker } from '../../src/local/private-broker.ts';
import { serverAccount } from '../../src/local/server-account.ts';
import { openPool } from '../../src/shared/database.ts';
import { onCleanUp, type Spawned, spawnProcess } from '../support/harness.ts';
import { temporaryFolder } from '../support/local-backend.ts';
import { type Reaper, startReaper } from '../support/reaper.ts';
import { sectionOf } from './page.ts';
import { giveAway, programs, type Server } from './postgres.ts';
import { type Shell, startShell } from './shell.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
/** Of every role and user. */
export const PASSWORD = 'secret';
/** Of the tables: the name that docs/kubernetes.md gives it. */
const OWNER = 'balance';
const WHO = ['api', 'worker', 'operator'];

export interface Place {
  reaper: Reaper;
  /** The account of PostgreSQL can enter it. */
  folder: string;
  /** That account can write to it. */
  backup: string;
}

/** Deleted at clean-up, also where the test is killed. */
export function makePlace(): Place {
  const reaper = startReaper();
  onCleanUp(() => reaper.close());
  const folder = temporaryFolder(reaper);
  const backup = path.join(folder, 'backup');
  mkdirSync(backup);
  for (const each of [folder, backup]) giveAway(each); // a data folder is moved away within it
  return { reaper, folder, backup };
}

export interface System {
  /** Of the API: the same after every start. */
  url: string;
  broker: PrivateBroker;
  /** Of a user of RabbitMQ. */
  amqpUrl(user: string): string;
  /** The database that the owner's URL names now. @returns a pool that is closed at clean-up. */
  openDatabase(): pg.Pool;
  /** Those that run, the API first. */
  processes(): readonly Spawned[];
  start(): Promise<void>;
  stopWorker(): Promise<void>;
  /** As when the machine is lost. */
  kill(): Promise<void>;
  /** A file that the runbooks write or read. */
  file(name: string): string;
  /** An operator's shell, after "Before you begin". */
  openShell(): Promise<Shell>;
  /** A shell of the account of PostgreSQL. */
  openShellOfPostgres(): Shell;
}

/** Not started yet. @param server where its database is, without one so far. */
export async function createSystem({ reaper, folder }: Place, server: Server): Promise<System> {
  const [secrets, files, bin] = ['secrets', 'files', 'bin'].map((name) => path.join(folder, name)) as [
    string,
    string,
    string,
  ];
  for (const each of [secrets, files, bin]) mkdirSync(each);
  const broker = await startPrivateBroker({
    dir: path.join(folder, 'broker'),
    onSpawn: (process) => reaper.add({ process }),
  });
  onCleanUp(async () => {
    await broker.kill();
    await broker.stop();
  });
  const amqpUrl = (user: string) => `amqp://${user}:${PASSWORD}@127.0.0.1:${broker.port}`;
  const write = (name: string, url: string) => writeFileSync(path.join(secrets, name), url);
  const login = (role: string) => `postgres://${role}:${PASSWORD}@${server.address}/balance`;
  write('owner-database-url', login(OWNER));
  for (const who of WHO) write(`${who}-database-url`, login(`balance_${who}_login`));
  for (const who of WHO) write(`${who}-amqp-url`, amqpUrl(who));

  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  let processes: Spawned[] = [];
  const spawn = (main: 'api' | 'worker') =>
    spawnProcess(main, {
      DATABASE_URL_FILE: path.join(secrets, `${main}-database-url`),
      AMQP_URL_FILE: path.join(secrets, `${main}-amqp-url`),
      ...{ HOST: '127.0.0.1', PORT: String(port), AUTH: 'off', RELAY_REPUBLISH_MS: '500' },
    });
  const start = async () => {
    processes = await Promise.all([spawn('api'), spawn('worker')]);
  };
  const stop = () => Promise.all(processes.splice(0).map(terminate));
  const commands: Record<string, (args: string[]) => Promise<string>> = {
    start: () => start().then(() => ''),
    stop: () => stop().then(() => ''),
    rabbitmqctl: (args) => broker.control(...args),
  };
  const control = await serveCommands(commands);
  for (const name of Object.keys(commands)) {
    const file = path.join(bin, name);
    const call = `printf '%s\\0' "$@" | curl --silent --fail-with-body --data-binary @- ${control}/${name}`;
    writeFileSync(file, `#!/bin/sh\n${call}\n`);
    chmodSync(file, 0o755);
  }

  const env = {
    ...{ PATH: [programs, bin, path.dirname(process.execPath), process.env.PATH].join(path.delimiter) },
    ...{ HOME: process.env.HOME, LC_ALL: 'C.UTF-8' },
  };
  const open = (options: { uid?: number | undefined; gid?: number | undefined; cwd: string }) => {
    const shell = startShell({ env, ...options });
    onCleanUp(() => shell.end());
    return shell;
  };
  return {
    ...{ url, broker, amqpUrl, start },
    processes: () => processes,
    stopWorker: () => terminate(processes.pop() as Spawned),
    kill: async () => void (await Promise.all(processes.splice(0).map((process) => process.kill()))),
    file: (name) => path.join(files, name),
    openDatabase() {
      const pool = openPool(readFileSync(path.join(secrets, 'owner-database-url'), 'utf8'), 'test', 4, {
        access: 'any server',
      });
      onCleanUp(() => pool.end());
      return pool;
    },
    async openShell() {
      const shell = open({ cwd: ROOT });
      const values = { SECRETS: secrets, FILES: files, API: url };
      for (const { commands } of sectionOf('Before you begin').blocks) {
        const own = commands.replaceAll(/^(start|stop)_service\(\) \{ .* \}$/gm, '$1_service() { $1; }');
        await shell.paste(withValues(own, values));
      }
      return shell;
    },
    openShellOfPostgres() {
      const { uid, gid } = serverAccount();
      return open({ cwd: '/', uid, gid });
    },
  };
}

async function terminate({ child }: Spawned): Promise<void> {
  const exited = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const code = await exited;
  if (code !== 0) throw new Error(`a process ended with exit code ${code}`);
}

/** @returns the address. A command gets its arguments with a zero byte after each. */
async function serveCommands(commands: Record<string, (args: string[]) => Promise<string>>): Promise<string> {
  const server = createServer(async (request, response) => {
    try {
      const args = (await text(request)).split('\0').slice(0, -1);
      const command = commands[request.url?.slice(1) ?? ''];
      response.end(await command?.(args));
    } catch (error) {
      response.writeHead(500).end(String(error));
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onCleanUp(async () => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/**
 * The page's commands with values of ours: `export NAME=…`, except where the value is made of
 * others.
 * @throws for a name without a value.
 */
export function withValues(commands: string, values: Readonly<Record<string, string>>): string {
  return commands.replaceAll(/^export (\w+)=(?!.*\$)(.*)$/gm, (_, name: string) => {
    if (values[name] === undefined) throw new Error(`docs/restore.md asks for ${name}, and the test has no value`);
    return `export ${name}='${values[name]}'`;
  });
}

/** Makes what a running system has: users of RabbitMQ, roles, database, tables. */
export async function setUp(server: Server, shell: Shell): Promise<void> {
  const ofBroker = sectionOf('Replace the broker').blocks.filter(({ step }) => step <= 2);
  for (const { commands } of ofBroker) await shell.paste(withValues(commands, BROKER_VALUES));
  await shell.paste(`
    psql '${server.url}/postgres' --quiet --command="CREATE ROLE ${OWNER} LOGIN CREATEROLE PASSWORD '${PASSWORD}'"
    psql '${server.url}/postgres' --quiet --command='CREATE DATABASE balance OWNER ${OWNER}'
    owner migrate
    logins`);
}

export const BROKER_VALUES = {
  ...{ API_PASSWORD: PASSWORD, WORKER_PASSWORD: PASSWORD, OPERATOR_PASSWORD: PASSWORD, BILLING_PASSWORD: PASSWORD },
  SINCE: '2000-01-01T00:00:00Z',
};
