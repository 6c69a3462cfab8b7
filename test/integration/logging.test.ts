// What the log lines of all processes have in common, and what is no news.
import { afterEach, expect, it } from 'vitest';
import { watch } from '../support/console-watcher.ts';
import { cleanUp, createBroker, createDatabase, environmentOf, spawnProcess, until } from '../support/harness.ts';

afterEach(cleanUp);

it('names its level as a word, its process and its time, in every line of API and worker', async () => {
  const environment = environmentOf(await createDatabase(), createBroker(), { LOG_LEVEL: 'debug' });
  for (const main of ['api', 'worker'] as const) {
    const { child, lines } = await spawnProcess(main, environment);
    child.kill('SIGTERM');
    await until('it has stopped', () => lines('stopped').length === 1);
    for (const line of lines()) {
      expect(line).toMatchObject({
        level: expect.stringMatching(/^(debug|info|warn|error)$/),
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
        name: main,
        pid: child.pid,
        msg: expect.any(String),
      });
    }
  }
});

it('a visit of the console is no line of the log', async () => {
  const { url, lines } = await spawnProcess('api', environmentOf(await createDatabase(), createBroker()));
  const connected = () => lines('connected to RabbitMQ');
  await until('both tracks of the relay are connected', () => connected().length === 2);
  const before = lines().length;
  for (let visit = 0; visit < 2; visit += 1) {
    const watcher = await watch(url(), {});
    await until('it is connected', () => watcher.live.at(-1)?.broker === 'connected');
    watcher.leave();
    await watcher.ended;
  }
  expect(lines().slice(before)).toEqual([]);
});
