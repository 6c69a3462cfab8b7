// npm run bench:turns: how much CPU the API takes at most without letting others in, whatever one client asks for. On a
// PostgreSQL and an API of its own. Prints a table; exit code 1 where a bound was missed.
import { once } from 'node:events';
import path from 'node:path';
import { takesNoOptions } from '../../src/cli/command-line.ts';
import { freePort } from '../../src/local/free-port.ts';
import { HOT_ACCOUNT } from './accounts.ts';
import { createBounds } from './bounds.ts';
import { type BenchDatabase, createDatabase, createTemplate } from './database.ts';
import { interruptible } from './interrupt.ts';
import { median, short } from './numbers.ts';
import { keeperOf, startProcess } from './processes.ts';
import { startPostgresOnly } from './servers.ts';
import { type TurnRequest, turnRequests } from './turn-requests.ts';

takesNoOptions(`usage: npm run bench:turns

Measures how much CPU the API takes at most without letting others in, whatever one client asks for, on a PostgreSQL and
an API of its own. Prints a table; exit code 1 where a bound was missed.`);

const TURN_MS_MAX = 20;
/** The median of so many counts, after the first, in which code is compiled. */
const TRIES = 5;
const ENTRIES = 20_000;

/** As if there had been so many credits of 1, each with all the notes that one may have. */
const FILL = `
  INSERT INTO ledger (
    account_id, version, epoch, previous_epoch, type, asset, amount, held_change, balance, held, reference, actor, metadata, created_at
  )
  SELECT account_id, number, epoch, epoch, 'balance.credited', asset, 1, 0, number, 0, repeat('r', 255), 'shop', $3, now()
  FROM account CROSS JOIN generate_series(1, $2::integer) AS number
  WHERE account_id = $1`;

async function fill({ client }: BenchDatabase): Promise<void> {
  const metadata = JSON.stringify(
    Object.fromEntries(Array.from({ length: 16 }, (_, index) => [`name-${index + 10}`, 'v'.repeat(56)])),
  );
  await client.query(FILL, [HOT_ACCOUNT, ENTRIES, metadata]);
  await client.query('UPDATE account SET version = $2, balance = $2 WHERE account_id = $1', [HOT_ACCOUNT, ENTRIES]);
  await client.query('VACUUM ANALYZE ledger');
}

const { judge, report } = createBounds();
const servers = await startPostgresOnly();
const over = interruptible(() => servers.reaper.close());
try {
  await createTemplate(servers.postgres.url);
  const database = await createDatabase(servers.postgres.url, { extraAccounts: 0, ledgerRows: 0, activeHolds: 1000 });
  await fill(database);
  const port = await freePort();
  const api = await startProcess(keeperOf(servers.reaper), {
    script: '../../src/api/main.ts',
    // Nothing connects to the broker: the relay is off, and nobody watches.
    env: {
      DATABASE_URL: database.url,
      ...{ AMQP_URL: 'amqp://127.0.0.1:1', HOST: '127.0.0.1', AUTH: 'off', RELAY: 'off', PORT: String(port) },
    },
    logFile: path.join(servers.folder, 'logs', 'api.log'),
    nodeOptions: ['--import', new URL('turn-probe.ts', import.meta.url).href],
  });
  const ask = async (message: string): Promise<{ longestMs: number }> => {
    const answer = once(api.child, 'message');
    api.child.send(message);
    return (await answer)[0];
  };
  async function longestOf({ method, path, body, headers, status }: TurnRequest): Promise<number> {
    await ask('look');
    const response = await fetch(`http://127.0.0.1:${port}${path}`, {
      method,
      headers: { ...(body && { 'content-type': 'application/json' }), ...headers },
      ...(body && { body }),
    });
    const answer = await response.text();
    const { longestMs } = await ask('tell');
    if (response.status !== status) console.log(`${path}: ${response.status} ${answer.slice(0, 500)}`);
    return longestMs;
  }
  const tries = Array.from({ length: TRIES + 1 }, (_, run) => turnRequests(`run-${run}`));
  for (const [index, { what }] of (tries[0] as TurnRequest[]).entries()) {
    const longest: number[] = [];
    for (const requests of tries) longest.push(await longestOf(requests[index] as TurnRequest));
    const [first = 0, ...others] = longest;
    const usual = median(others);
    judge(what, `${short(usual)} ms, first ${short(first)} ms`, `≤ ${TURN_MS_MAX} ms`, usual <= TURN_MS_MAX);
  }
  await api.kill();
  await database.drop();
} finally {
  over();
  await servers.stop();
}
report();
