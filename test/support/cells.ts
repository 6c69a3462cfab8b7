// Cells as docs/cells.md has them, and what kills a client of theirs at a chosen moment.
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createKey } from '../../src/cli/api-keys.ts';
import { SCOPES } from '../../src/shared/api-key.ts';
import {
  type Broker,
  createBroker,
  createDatabase,
  type Database,
  environmentOf,
  onCleanUp,
  type Spawned,
  spawnProcess,
  untilReady,
} from './harness.ts';

export interface Cell {
  /** Of its accounts. */
  prefix: string;
  database: Database;
  broker: Broker;
  apis: Spawned[];
  worker: Spawned;
}

/** A whole system: its own database, and its own namespace on the broker of all. */
export async function startCell(prefix: string, apiProcesses: number): Promise<Cell> {
  const database = await createDatabase();
  const broker = createBroker();
  const environment = environmentOf(database, broker, { AUTH: 'required' });
  const processes = ['worker' as const, ...Array(apiProcesses).fill('api' as const)];
  const [worker, ...apis] = await Promise.all(processes.map((main) => spawnProcess(main, environment)));
  for (const api of apis) await untilReady(api.url());
  return { prefix, database, broker, apis, worker: worker as Spawned };
}

/** A new key of a cell. @param accountPrefix null: for all accounts. */
export async function keyOf({ database }: Cell, actor: string, accountPrefix: string | null): Promise<string> {
  const client = await database.pool.connect();
  const bound = accountPrefix === null ? {} : { accountPrefix };
  const { token } = await createKey(client, { actor, scopes: SCOPES, ...bound });
  client.release();
  return token;
}

export const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

export interface DeadlyProxy {
  url: string;
  /** Kills the client at its next request that matches: once there is an answer, which it does not get. */
  arm(client: ChildProcess, request: RegExp): void;
}

/** Between a client that is to be killed and the service. */
export async function startDeadlyProxy(target: string): Promise<DeadlyProxy> {
  let armed: { client: ChildProcess; request: RegExp } | undefined;
  async function pass(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const strikes = armed?.request.test(`${request.method} ${request.url}`) ? armed : undefined;
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const { authorization = '', 'idempotency-key': key } = request.headers;
    const answer = await fetch(target + request.url, {
      method: request.method ?? 'GET',
      headers: {
        ...{ authorization, 'content-type': 'application/json' },
        ...(key === undefined ? {} : { 'idempotency-key': String(key) }),
      },
      ...(chunks.length > 0 && { body: Buffer.concat(chunks) }),
    });
    const body = await answer.text();
    if (strikes) {
      armed = undefined;
      strikes.client.kill('SIGKILL');
      return void response.destroy();
    }
    response.writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? '' }).end(body);
  }
  const server = createServer((request, response) => {
    pass(request, response).catch(() => response.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onCleanUp(async () => {
    server.closeAllConnections();
    server.close();
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    arm: (client, request) => {
      armed = { client, request };
    },
  };
}
