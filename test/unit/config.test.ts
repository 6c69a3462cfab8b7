import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { brokerOf, brokerUrls } from '../../src/shared/broker-urls.ts';
import {
  readApiSettings,
  readDatabaseSettings,
  readWorkerSettings,
  SettingsError,
  settingNames,
} from '../../src/shared/config.ts';
import { addressOf } from '../../src/shared/database-url.ts';

const SEVERAL_HOSTS_FORMS = [
  'postgres://one,two/balance',
  'postgres://u:secret@one:5432,two:5432/balance',
  'postgres://u:secret@one:5432,two:5433/balance?target_session_attrs=read-write',
  'postgresql://u:sec,ret@[::1]:5432,[::2]/balance',
  'postgres://u:secret@one,two',
  'postgres://u:secret@one,two?sslmode=disable',
  'postgres://u:secret@%2Fvar%2Frun,two/balance',
  'postgres:///balance?host=one,two',
  'postgres:///balance?host=one%2Ctwo&user=u&password=secret',
  'postgres:///balance?host=one&host=two',
  'postgres://one/balance?hostaddr=127.0.0.1,127.0.0.2',
  'postgres://one/balance?port=5432,5433',
];
const ONE_HOST_FORMS = [
  'postgres://u:a,b@one:5432/balance',
  'postgres://u:a,1@one/balance',
  'postgres://one/a,b?options=-c search_path=a,b',
  'postgres://one/balance?search_path=a,b&host=two',
  'postgres://one/balance?target_session_attrs=read-write',
];

const good = { DATABASE_URL: 'postgres://localhost/balance', AMQP_URL: 'amqp://localhost' };

describe('settings', () => {
  it('need only the two URLs', () => {
    expect(readApiSettings(good)).toMatchObject({ port: 3000, relay: 'on', amqpNamespace: 'balance' });
    expect(readWorkerSettings(good)).toMatchObject({ prefetch: 125, healthPort: undefined });
  });

  it('take an empty variable for none', () => {
    expect(readApiSettings({ ...good, PORT: '', LOG_LEVEL: '' })).toMatchObject({ port: 3000, logLevel: 'info' });
  });

  it('name every variable that is missing or wrong, each with what to do', () => {
    const read = () => readApiSettings({ AMQP_URL: 'http://localhost', PORT: '70000', RELAY: 'maybe' });
    expect(read).toThrow(SettingsError);
    expect(read).toThrow(/^DATABASE_URL is not set: give a PostgreSQL URL/m);
    expect(read).toThrow(/^AMQP_URL must be an AMQP URL/m);
    expect(read).toThrow(/^PORT must be a whole number from 0 to 65535$/m);
    expect(read).toThrow(/^RELAY must be one of on, off, only$/m);
  });

  it('refuse a URL that is none, without repeating the password in it', () => {
    const read = () => readApiSettings({ ...good, AMQP_URL: 'amqp://user:secret@host:99999' });
    expect(read).toThrow(/^AMQP_URL is not a correct URL/m);
    expect(read).not.toThrow(/secret/);
  });

  it('ask for API keys, unless only this machine can call', () => {
    expect(readApiSettings(good)).toMatchObject({ auth: 'required', rateLimit: undefined });
    for (const HOST of ['127.0.0.1', '127.9.9.9', '::1', 'localhost']) {
      expect(readApiSettings({ ...good, AUTH: 'off', HOST }).auth).toBe('off');
    }
    for (const HOST of ['', '0.0.0.0', '::', '10.0.0.1', '127.example.com', '127.0.0.1.example.com', 'example.com']) {
      expect(() => readApiSettings({ ...good, AUTH: 'off', HOST }), HOST).toThrow(
        /^AUTH off is only accepted .* HOST/m,
      );
    }
    expect(() => readApiSettings({ ...good, AUTH: 'no' })).toThrow(/^AUTH must be one of required, off$/m);
  });

  it('refuse a rate limit where there are no keys to count by', () => {
    expect(readApiSettings({ ...good, RATE_LIMIT: '5' })).toMatchObject({ rateLimit: 5, rateLimitWindowS: 1 });
    const read = () => readApiSettings({ ...good, AUTH: 'off', HOST: '::1', RATE_LIMIT: '5' });
    expect(read).toThrow(/^RATE_LIMIT counts per API key/m);
    expect(() => readApiSettings({ ...good, RATE_LIMIT: '0' })).toThrow(/^RATE_LIMIT must be a whole number from 1 /m);
  });

  it('refuse a URL that names a file for TLS which is not there, or TLS without using it', () => {
    const read = (AMQP_URL: string, DATABASE_URL: string) => () => readApiSettings({ AMQP_URL, DATABASE_URL });
    const here = fileURLToPath(import.meta.url);
    expect(
      read(`amqps://host?cacertfile=${here}`, `postgres://host/db?sslmode=verify-full&sslrootcert=${here}`),
    ).not.toThrow();
    expect(read('amqps://host?cacertfile=/no/such', good.DATABASE_URL)).toThrow(
      /^AMQP_URL names a file in cacertfile that cannot be read: \/no\/such$/m,
    );
    expect(read(good.AMQP_URL, 'postgres://host/db?sslrootcert=/no/such')).toThrow(
      /^DATABASE_URL names a file in sslrootcert that cannot be read: \/no\/such$/m,
    );
    expect(read(`amqp://host?cacertfile=${here}`, good.DATABASE_URL)).toThrow(/^AMQP_URL names files for TLS.*amqps:/m);
  });

  it('take a URL for each node of a RabbitMQ cluster, and hold each to the same', () => {
    const here = fileURLToPath(import.meta.url);
    const read = (AMQP_URL: string) => () => readApiSettings({ ...good, AMQP_URL });
    const list = `amqp://u:a,b@one/v,amqp://u:a,b@two:5673/v , amqps://three:5671/v?cacertfile=${here}`;
    expect(brokerUrls(read(list)().amqpUrl).map(brokerOf)).toEqual(['one:5672', 'two:5673', 'three:5671']);
    expect(read('amqp://one,http://two')).toThrow(/^AMQP_URL names several hosts in one URL/m);
    expect(read('amqp://one,amqp://u:secret@two:99999')).toThrow(/^AMQP_URL \(URL 2 of 2\) is not a correct URL/m);
    expect(read('amqp://one,amqp://two/other')).toThrow(/^AMQP_URL names different virtual hosts: all of its URLs/m);
    expect(read('amqp://one,amqp://two/%2F')).not.toThrow();
    expect(read(`amqps://one,amqp://two?cacertfile=${here}`)).toThrow(/^AMQP_URL \(URL 2 of 2\) names files for TLS/m);
    expect(read('amqps://one,amqps://two?cacertfile=/no/such')).toThrow(
      /^AMQP_URL names a file in cacertfile that cannot be read: \/no\/such$/m,
    );
    for (const hosts of ['one,two', 'u:p@one:5672,two:5672/v', 'one,[::1]:5672', 'one,']) {
      expect(read(`amqp://${hosts}`), hosts).toThrow(
        /^AMQP_URL names several hosts in one URL: give a whole URL for each, amqp:\/\//m,
      );
    }
  });

  it('refuse several hosts of PostgreSQL in every form that libpq knows, and say what does it better', () => {
    const read = (DATABASE_URL: string) => () => readDatabaseSettings({ DATABASE_URL });
    for (const url of SEVERAL_HOSTS_FORMS) {
      expect(read(url), url).toThrow(/^DATABASE_URL names several hosts: name one .* HAProxy or a virtual address/m);
      expect(read(url), url).not.toThrow(/percent-encode|secret/);
      expect(() => addressOf(url), url).toThrow(/^DATABASE_URL names several hosts/);
    }
    for (const url of ONE_HOST_FORMS) expect(read(url), url).not.toThrow();
  });

  it('take a URL from a file, as containers get their secrets, and say which file cannot be read', async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'config-'));
    const file = path.join(folder, 'database-url');
    await writeFile(file, `${good.DATABASE_URL}\n`);
    const read = (more: Record<string, string>) => readApiSettings({ AMQP_URL: good.AMQP_URL, ...more });
    expect(read({ DATABASE_URL_FILE: file, DATABASE_URL: '' }).databaseUrl).toBe(good.DATABASE_URL);
    expect(() => read({ DATABASE_URL_FILE: `${file}.not` })).toThrow(
      `DATABASE_URL_FILE names a file that cannot be read: ${file}.not`,
    );
    expect(() => read({ DATABASE_URL_FILE: file, DATABASE_URL: good.DATABASE_URL })).toThrow(
      'DATABASE_URL and DATABASE_URL_FILE are both set: set only one of them',
    );
    await writeFile(file, '\n');
    expect(() => read({ DATABASE_URL_FILE: file })).toThrow(/^DATABASE_URL is not set/m);
    await rm(folder, { recursive: true });
  });

  it('are all described in docs/run.md, and nothing else is', async () => {
    const text = await readFile(new URL('../../docs/run.md', import.meta.url), 'utf8');
    const section = text.slice(text.indexOf('## Settings'), text.indexOf('## ', text.indexOf('## Settings') + 3));
    const described = [...section.matchAll(/^\| `([A-Z_]+)` \|/gm)].map((match) => match[1]);
    const known = new Set([...settingNames.api, ...settingNames.worker]);
    expect(new Set(described)).toEqual(known);
    expect(described).toHaveLength(known.size);
  });
});
