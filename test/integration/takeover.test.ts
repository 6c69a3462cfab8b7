// Who relays when the relay's process is frozen: SIGSTOP leaves its connections to the kernel,
// which keeps answering for it.
import { afterEach, beforeEach, expect, it } from 'vitest';
import {
  applyDirectly,
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  type Database,
  drained,
  environmentOf,
  insertAccounts,
  onCleanUp,
  spawnProcess,
  startWorkerHere,
  subscribe,
  until,
} from '../support/harness.ts';

let database: Database;
let broker: Broker;

beforeEach(async () => {
  database = await createDatabase();
  broker = createBroker();
  await insertAccounts(database, 'a');
});
afterEach(cleanUp);

it('another process takes over from a frozen one, which does no harm when it continues', {
  timeout: 120_000,
}, async () => {
  const received = await subscribe(broker);
  await startWorkerHere(database, broker);
  const environment = environmentOf(database, broker, { RELAY: 'only', LOG_LEVEL: 'info' });
  const first = await spawnProcess('api', environment);
  await until('the first relays', () => first.output().includes('this relay is the active one'));
  const second = await spawnProcess('api', environment);
  await applyDirectly(database.pool, 'a', 1);
  await drained(database);

  process.kill(first.child.pid as number, 'SIGSTOP');
  onCleanUp(async () => void (first.child.exitCode ?? process.kill(first.child.pid as number, 'SIGCONT')));
  const frozenAtMs = performance.now();
  await applyDirectly(database.pool, 'a', 1, 100);
  await until('the second relays', () => second.output().includes('this relay is the active one'));
  await until('its events arrived', () => received.length >= 102);
  expect(performance.now() - frozenAtMs).toBeLessThan(15_000);
  await drained(database);

  process.kill(first.child.pid as number, 'SIGCONT');
  await until('it has noticed', () => first.output().includes('the term of this relay ended'));
  for (let count = 0; count < 20; count += 1) await applyDirectly(database.pool, 'a', 1, 10);
  expect(await drained(database)).toMatchObject({ ledgerEntries: 302, offendingAccounts: 0 });
  await until('the subscriber has all', () => new Set(received.map(({ messageId }) => messageId)).size === 302);
});
