// npm run bench:sql: the SQL function without HTTP, so that a regression is seen before it reaches HTTP. About a minute.
import { commandLine } from '../../src/cli/command-line.ts';
import { createTemplate } from './database.ts';
import { interruptible } from './interrupt.ts';
import { short, whole } from './numbers.ts';
import { installBenchDependencies, publish } from './publish.ts';
import { folderOf, pageIn, readResults } from './results.ts';
import { startPostgresOnly } from './servers.ts';
import { measureSql, type SqlRow } from './sql-measure.ts';

const { publish: isPublished = false } = commandLine(
  { publish: { type: 'boolean' } },
  `usage: npm run bench:sql -- [options]

Measures the SQL function without HTTP, on a PostgreSQL of its own; about a minute. Writes into
test/bench/report/benchmarks.md, which git ignores.

  --publish        into docs/benchmarks.md instead`,
);
const folder = folderOf(isPublished);

const SECONDS = 2;

const show = ({ batch, accounts, keys, updatesPerSecond, batchMs }: SqlRow) =>
  console.log(
    `${accounts.padEnd(6)}${(keys ? 'keys' : 'no keys').padEnd(9)}batch ${whole(batch).padStart(5)}` +
      `${whole(updatesPerSecond).padStart(9)} updates/s ${short(batchMs).padStart(7)} ms a batch`,
  );

await installBenchDependencies();
const servers = await startPostgresOnly();
const over = interruptible(() => servers.reaper.close());
try {
  await createTemplate(servers.postgres.url);
  const rows = await measureSql(servers.postgres.url, SECONDS, show);
  const results = readResults(folder);
  if (results) {
    await publish(folder, { ...results, sql: { date: new Date().toISOString(), rows } });
    console.log(`Written: ${pageIn(folder)}`);
  } else console.log(`Not written: ${pageIn(folder)} is begun by npm run bench`);
} finally {
  over();
  await servers.stop();
}
