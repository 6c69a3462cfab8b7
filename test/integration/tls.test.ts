// TLS to PostgreSQL and RabbitMQ, by URL: servers with certificates of an authority that nobody
// else knows.
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { probeBroker } from '../../src/local/amqp-probe.ts';
import { closeConnection, connect } from '../../src/shared/broker.ts';
import { openClient } from '../../src/shared/database.ts';
import { migrate } from '../../src/shared/migrations.ts';
import { type DisposableBroker, startDisposableBroker, startDisposablePostgres } from '../support/backends.ts';
import {
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  drained,
  onCleanUp,
  startApiHere,
  startWorkerHere,
} from '../support/harness.ts';
import { createCertificate, type ServerTls } from '../support/server-tls.ts';

// The certificate names the host, not its address: the address is what a wrong name looks like.
const NAMED = 'localhost';
const UNNAMED = '127.0.0.1';

let tls: ServerTls;
/** Of an authority that has signed nothing here. */
let stranger: ServerTls;
let plainDatabaseUrl: string;
let broker: DisposableBroker;

beforeAll(async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'highload-balance-tls-'));
  onCleanUp(async () => rmSync(folder, { recursive: true }));
  chmodSync(folder, 0o755);
  const strangersFolder = path.join(folder, 'stranger');
  mkdirSync(strangersFolder);
  tls = createCertificate(folder, NAMED);
  stranger = createCertificate(strangersFolder, NAMED);
  chmodSync(tls.keyFile, 0o644); // the server may run under another account
  const postgres = await startDisposablePostgres();
  onCleanUp(() => postgres.stop());
  plainDatabaseUrl = postgres.url;
  await demandTls(postgres.url);
  broker = await startDisposableBroker({ tls });
  onCleanUp(() => broker.stop());
});
afterAll(cleanUp);

/**
 * The server takes no connection without TLS from now on. Its files are written by itself, wherever
 * it runs.
 */
async function demandTls(serverUrl: string): Promise<void> {
  const client = await openClient(serverUrl, 'test');
  const write = async (file: string, text: string) => {
    await client.query(
      `COPY (SELECT regexp_split_to_table(${client.escapeLiteral(text.trim())}, E'\\n')) TO PROGRAM 'umask 077; cat > ${file}'`,
    );
  };
  await write('server.pem', readFileSync(tls.certFile, 'utf8'));
  await write('server.key', readFileSync(tls.keyFile, 'utf8'));
  await write('pg_hba.conf', 'hostssl all all all scram-sha-256');
  await client.query(`ALTER SYSTEM SET ssl_cert_file = 'server.pem'`);
  await client.query(`ALTER SYSTEM SET ssl_key_file = 'server.key'`);
  await client.query('ALTER SYSTEM SET ssl = on');
  await client.query('SELECT pg_reload_conf()');
  await client.end();
}

function databaseUrl(hostname: string, parameters: Record<string, string>): string {
  const url = new URL(plainDatabaseUrl);
  url.hostname = hostname;
  url.search = new URLSearchParams(parameters).toString();
  return url.href;
}

function amqpUrl(hostname: string, { caFile, certFile, keyFile }: Partial<ServerTls>): string {
  const url = new URL(broker.url.replace(/^amqp:/, 'amqps:'));
  url.hostname = hostname;
  url.port = String(broker.tlsPort);
  const files = { cacertfile: caFile, certfile: certFile, keyfile: keyFile };
  for (const [name, file] of Object.entries(files)) if (file) url.searchParams.set(name, file);
  return url.href;
}

it('carries everything from the update to the ledger', async () => {
  const serverUrl = databaseUrl(NAMED, { sslmode: 'verify-full', sslrootcert: tls.caFile });
  const database = await createDatabase({ serverUrl });
  const overTls = createBroker(amqpUrl(NAMED, tls));
  const { url } = await startApiHere(database, overTls);
  await startWorkerHere(database, overTls);
  await createAccount(url, 'alice', 7);
  expect(await drained(database)).toMatchObject({ ledgerEntries: 2, offendingAccounts: 0 });
  const { rows } = await database.pool.query(
    `SELECT DISTINCT application_name AS name, ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
     WHERE datname = current_database() ORDER BY 1`,
  );
  expect(rows.map(({ name }) => name)).toEqual(
    expect.arrayContaining(['api', 'api updates', 'relay', 'worker'].map((name) => `highload-balance ${name}`)),
  );
  expect(rows.every(({ ssl }) => ssl)).toBe(true);
});

describe('to PostgreSQL is refused', () => {
  it.each<[string, string, () => Record<string, string>, RegExp]>([
    ['without TLS, by the server', NAMED, () => ({}), /no encryption/],
    [
      'to another name',
      UNNAMED,
      () => ({ sslmode: 'verify-full', sslrootcert: tls.caFile }),
      /does not match certificate/,
    ],
    ['of an unknown authority', NAMED, () => ({ sslmode: 'verify-full' }), /unable to verify|self-signed/],
    ['of another authority', NAMED, () => ({ sslrootcert: stranger.caFile }), /unable to verify|self-signed/],
  ])('%s', async (_, hostname, parameters, reason) => {
    await expect(migrate(databaseUrl(hostname, parameters()))).rejects.toThrow(reason);
  });
});

describe('to RabbitMQ is refused', () => {
  it.each<[string, string, () => Partial<ServerTls>, RegExp]>([
    ['to another name', UNNAMED, () => tls, /does not match certificate/],
    [
      'of an unknown authority',
      NAMED,
      () => ({ certFile: tls.certFile, keyFile: tls.keyFile }),
      /unable to verify|self-signed/,
    ],
    ['of another authority', NAMED, () => ({ ...tls, caFile: stranger.caFile }), /unable to verify|self-signed/],
    [
      'without a certificate of ours, by the server',
      NAMED,
      () => ({ caFile: tls.caFile }),
      /certificate required|handshake|closed/i,
    ],
  ])('%s', async (_, hostname, files, reason) => {
    await expect(connect(amqpUrl(hostname, files()), 'test').then(closeConnection)).rejects.toThrow(reason);
  });

  it('with a reason, where npm start looks for it', async () => {
    expect(await probeBroker(amqpUrl(NAMED, tls), 5000)).toMatchObject({ answer: 'ready' });
    expect(await probeBroker(amqpUrl(UNNAMED, tls), 5000)).toEqual({
      answer: 'unreachable',
      reason: expect.stringMatching(/does not match certificate/),
    });
  });
});
