import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { readApiSettings, readWorkerSettings, SettingsError, settingNames } from '../../src/shared/config.ts';

const good = { DATABASE_URL: 'postgres://localhost/balance', AMQP_URL: 'amqp://localhost' };

describe('settings', () => {
  it('need only the two URLs', () => {
    expect(readApiSettings(good)).toMatchObject({ port: 3000, relay: 'on', amqpNamespace: 'balance' });
    expect(readWorkerSettings(good)).toMatchObject({ prefetch: 2000, healthPort: undefined });
  });

  it('take an empty variable for none', () => {
    expect(readApiSettings({ ...good, PORT: '', LOG_LEVEL: '' })).toMatchObject({ port: 3000, logLevel: 'info' });
  });

  it('name every variable that is missing or wrong, each with what to do', () => {
    const read = () => readApiSettings({ AMQP_URL: 'http://localhost', PORT: '70000', RELAY: 'maybe' });
    expect(read).toThrow(SettingsError);
    expect(read).toThrow(/^DATABASE_URL is not set: give a PostgreSQL URL/m);
    expect(read).toThrow(/^AMQP_URL must be an AMQP URL/m);
    expect(read).toThrow(/^PORT .*65535/m);
    expect(read).toThrow(/^RELAY .*"on"\|"off"\|"only"/m);
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
      expect(() => readApiSettings({ ...good, AUTH: 'off', HOST }), HOST).toThrow(/^AUTH off is taken only .* HOST/m);
    }
    expect(() => readApiSettings({ ...good, AUTH: 'no' })).toThrow(/^AUTH .*"required"\|"off"/m);
  });

  it('refuse a rate limit where there are no keys to count by', () => {
    expect(readApiSettings({ ...good, RATE_LIMIT: '5' })).toMatchObject({ rateLimit: 5, rateLimitWindowS: 1 });
    const read = () => readApiSettings({ ...good, AUTH: 'off', HOST: '::1', RATE_LIMIT: '5' });
    expect(read).toThrow(/^RATE_LIMIT counts by API key/m);
    expect(() => readApiSettings({ ...good, RATE_LIMIT: '0' })).toThrow(/^RATE_LIMIT /m);
  });

  it('refuse a URL that names a file for TLS which is not there, or TLS without using it', () => {
    const read = (AMQP_URL: string, DATABASE_URL: string) => () => readApiSettings({ AMQP_URL, DATABASE_URL });
    const here = fileURLToPath(import.meta.url);
    expect(
      read(`amqps://host?cacertfile=${here}`, `postgres://host/db?sslmode=verify-full&sslrootcert=${here}`),
    ).not.toThrow();
    expect(read('amqps://host?cacertfile=/no/such', good.DATABASE_URL)).toThrow(
      /^AMQP_URL names in cacertfile a file that cannot be read: \/no\/such$/m,
    );
    expect(read(good.AMQP_URL, 'postgres://host/db?sslrootcert=/no/such')).toThrow(
      /^DATABASE_URL names in sslrootcert a file that cannot be read: \/no\/such$/m,
    );
    expect(read(`amqp://host?cacertfile=${here}`, good.DATABASE_URL)).toThrow(/^AMQP_URL names files for TLS.*amqps:/m);
  });

  it('are all described in docs/operations.md, and nothing else is', async () => {
    const text = await readFile(new URL('../../docs/operations.md', import.meta.url), 'utf8');
    const section = text.slice(text.indexOf('## Settings'), text.indexOf('## ', text.indexOf('## Settings') + 3));
    const described = [...section.matchAll(/^\| `([A-Z_]+)` \|/gm)].map((match) => match[1]);
    const known = new Set([...settingNames.api, ...settingNames.worker]);
    expect(new Set(described)).toEqual(known);
    expect(described).toHaveLength(known.size);
  });
});
