// The alert rules are correct, each has its place in the runbook, and they and the dashboard are about metrics that exist.
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, it } from 'vitest';
import {
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  send,
  startApiHere,
  startWorkerHere,
} from '../harness.ts';

const pathOf = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const RULES = 'docs/monitoring/alerts.yml';
const text = readFileSync(pathOf(RULES), 'utf8');
const dashboard = JSON.parse(readFileSync(pathOf('docs/monitoring/dashboard.json'), 'utf8'));

afterAll(cleanUp);

const hasPromtool = spawnSync('promtool', ['--version']).status === 0;
if (!hasPromtool) console.warn(`SKIPPED: no promtool (Debian: prometheus), so ${RULES} is not checked by it`);

it.runIf(hasPromtool)('are accepted by promtool', () => {
  expect(execFileSync('promtool', ['check', 'rules', pathOf(RULES)], { encoding: 'utf8' })).toMatch(
    /SUCCESS: \d+ rules found/,
  );
});

it('have a line in the runbook each', () => {
  const alerts = [...text.matchAll(/alert: (\w+)/g)].map(([, name]) => name);
  const runbook = [...readFileSync(pathOf('docs/operations.md'), 'utf8').matchAll(/^\| `(Balance\w+)` \|/gm)];
  expect(alerts.length).toBeGreaterThan(0);
  expect(runbook.map(([, name]) => name)).toEqual(alerts);
});

it('and the runbook are about metrics that exist', async () => {
  const database = await createDatabase();
  const broker = createBroker();
  const { url } = await startApiHere(database, broker);
  const worker = await startWorkerHere(database, broker, { HEALTH_PORT: '0', HEALTH_HOST: '127.0.0.1' });
  await createAccount(url, 'a');
  await send(url, 'POST', '/v1/balance-updates', { accountId: 'a', amount: 1 });
  const pages = await Promise.all(
    [url, `http://127.0.0.1:${worker.healthPort}`].map(async (base) => (await fetch(`${base}/metrics`)).text()),
  );
  const exist = new Set(
    pages
      .join('\n')
      .match(/^# TYPE \w+/gm)
      ?.map((line) => line.slice('# TYPE '.length)),
  );
  const queries = dashboard.panels.flatMap((panel: { targets?: { expr: string }[] }) => panel.targets ?? []);
  expect(queries.length).toBeGreaterThan(10);
  const asked = text + queries.map(({ expr }: { expr: string }) => expr).join('\n');
  const used = asked.match(/\b(?:http|balance|postgres|outbox|relay|rabbitmq|ledger|dead|nodejs|process)_\w+/g) ?? [];
  const described = [...readFileSync(pathOf('docs/operations.md'), 'utf8').matchAll(/^\| (`[a-z]+_.*?) \|/gm)].flatMap(
    ([, cell]) => cell?.match(/(?<=`)[a-z]+_[a-z_]+/g) ?? [],
  );
  const ofHistogram = /_(?:bucket|sum|count)$/;
  for (const name of [...used, ...described.filter((name) => !/^(?:nodejs|process)_$/.test(name))]) {
    expect(exist, name).toContain(exist.has(name) ? name : name.replace(ofHistogram, ''));
  }
  expect(described.length).toBeGreaterThan(10);
});
