import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { createServer, type Socket } from 'node:net';
import { userInfo } from 'node:os';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { openClient } from '../../src/shared/database.ts';
import { addressOf, serverOf } from '../../src/shared/database-url.ts';

afterEach(() => vi.unstubAllEnvs());

const SHELL = {
  PGHOST: '192.0.2.1',
  PGPORT: '1',
  PGUSER: 'nobody',
  PGDATABASE: 'nothing',
  PGOPTIONS: '-c search_path=app2',
  PGAPPNAME: 'somebody else',
  PGREPLICATION: 'database',
  PGSSLNEGOTIATION: 'direct',
};

describe('DATABASE_URL', () => {
  it.each([
    [
      'postgres://u:p@db.internal:6432/balance',
      { host: 'db.internal', port: 6432, user: 'u', password: 'p', database: 'balance' },
    ],
    ['postgresql://u:p@db/balance', { host: 'db', port: 5432 }],
    ['postgres://u:a%2Fb%20%25@db/x', { password: 'a/b %' }],
    ['postgres://u s:a%2Fb c@db/x?options=-c geqo=off', { user: 'u s', password: 'a/b c', options: '-c geqo=off' }],
    ['postgres://u:50%&a%2Fb@db/x', { password: '50%&a/b' }],
    ['postgres://u:p@db/a%2Fb%20c', { database: 'a/b c' }],
    ['postgres://u:p@[::1]:5433/x', { host: '::1', port: 5433 }],
    ['postgres://u:p@%2Fvar%2Frun/x', { host: '/var/run', database: 'x' }],
    ['postgres:///x?host=/var/run&user=u', { host: '/var/run', user: 'u', database: 'x' }],
    ['postgres://u@db', { password: undefined, database: 'u' }],
    ['postgres://db/x', { user: userInfo().username }],
    ['postgres://u:p@db/x?search_path=app2', { searchPath: 'app2' }],
    ['postgres://u:p@db/x?sslmode=disable', { ssl: false }],
    ['postgres://u:p@db/x?sslmode=no-verify', { ssl: { rejectUnauthorized: false } }],
    ['postgres://u:p@db/x?sslmode=verify-full', { ssl: {} }],
    ['postgres://u:p@db/x', { ssl: undefined, sslnegotiation: 'postgres' }],
  ])('%s is read alike in every shell', (url, expected) => {
    const read = addressOf(url);
    expect(read).toMatchObject(expected);
    for (const [name, value] of Object.entries(SHELL)) vi.stubEnv(name, value);
    expect(addressOf(url)).toEqual(read);
  });

  it('names its server in a sentence', () => {
    expect(serverOf('postgres://u:p@db/x')).toBe('db:5432');
    expect(serverOf('postgres:///x?host=/var/run')).toBe('/var/run');
  });

  it('is not part of the error about it', () => {
    expect(() => addressOf('postgres://u:secret@db:99999/x')).toThrow(/^DATABASE_URL is not a correct URL$/);
  });
});

/** What the driver sends first. */
async function firstPacket(parameters: string): Promise<Buffer> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const connected = once(server, 'connection') as Promise<[Socket]>;
  const { port } = server.address() as AddressInfo;
  const opening = openClient(`postgres://u:p@127.0.0.1:${port}/d${parameters}`, 'test');
  const [socket] = await connected;
  const [packet] = (await once(socket, 'data')) as [Buffer];
  socket.destroy();
  await expect(opening).rejects.toThrow(/terminated/);
  server.close();
  return packet;
}

it.each([
  ['', true],
  ['?sslmode=disable', false],
])('asks for TLS where PGSSLMODE does and the URL is silent: "%s"', async (parameters, asks) => {
  vi.stubEnv('PGSSLMODE', 'verify-full');
  const packet = await firstPacket(parameters);
  expect(packet.readInt32BE(4) === SSL_REQUEST).toBe(asks);
});

const SSL_REQUEST = 80_877_103;

it('sends nothing at the start that the URL does not say', async () => {
  for (const [name, value] of Object.entries(SHELL)) vi.stubEnv(name, value);
  const packet = await firstPacket('?options=-c geqo=off');
  // Length and protocol, then names and values.
  const words = packet.subarray(8).toString().split('\0').slice(0, -2);
  const said = Object.fromEntries(words.flatMap((word, index) => (index % 2 ? [] : [[word, words[index + 1]]])));
  expect(said).toEqual({
    user: 'u',
    database: 'd',
    application_name: 'highload-balance test',
    client_encoding: 'UTF8',
    options: '-c geqo=off',
  });
});
