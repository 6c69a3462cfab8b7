// The console calls bad what an alert is raised for.
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

it.each([
  ['LAG_ALERT_MS', /max\(outbox_oldest_age_seconds\) > ([\d.]+)$/m],
  ['SLOW_ALERT_MS', /route="\/v1\/balance-updates"\}\[5m\]\)\)\) > ([\d.]+)$/m],
] as const)('%s is the threshold of its alert', (name, alert) => {
  const seconds = alert.exec(read('docs/monitoring/alerts.yml'))?.[1];
  const milliseconds = new RegExp(`const ${name} = ([\\d_]+);`).exec(read('src/api/console/page/tiles.js'))?.[1];
  expect(Number(milliseconds?.replace('_', ''))).toBe(Number(seconds) * 1000);
});
