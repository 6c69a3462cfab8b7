// Several hosts in DATABASE_URL: refused by everything that reads it, before it connects anywhere,
// in one sentence.
import { afterAll, expect, it } from 'vitest';
import { runCommand, startScript } from '../support/commands.ts';
import { cleanUp } from '../support/harness.ts';

afterAll(cleanUp);

const FORMS = [
  'postgres://u:secret@one:5432,two:5432/balance?target_session_attrs=read-write',
  'postgres://u:secret@one,two/balance',
  'postgres:///balance?user=u&password=secret&host=one,two',
  'postgres:///balance?user=u&password=secret&host=one&host=two',
];
const SENTENCE = /^DATABASE_URL names several hosts: name one that .* such as HAProxy or a virtual address .*\n$/;

const ENDINGS: Record<string, (environment: Record<string, string>) => Promise<{ code: number | null; err: string }>> =
  {
    api: (environment) => startScript('api/main.ts', [], environment).whenEnded,
    worker: (environment) => startScript('worker/main.ts', [], environment).whenEnded,
    migrate: (environment) => runCommand(['migrate'], environment),
    verify: (environment) => runCommand(['verify'], environment),
    heads: (environment) => runCommand(['heads'], environment),
    'keys list': (environment) => runCommand(['keys', 'list'], environment),
    restored: (environment) => runCommand(['restored'], environment),
    replay: (environment) => runCommand(['replay', '--queue', 'a-queue', '--all'], environment),
  };

it.each(Object.entries(ENDINGS))('%s refuses them', async (_, ending) => {
  const endings = FORMS.map((DATABASE_URL) => ending({ DATABASE_URL, AMQP_URL: 'amqp://127.0.0.1:1' }));
  for (const { code, err } of await Promise.all(endings)) {
    expect(code).toBe(1);
    expect(err).toMatch(SENTENCE);
  }
});
