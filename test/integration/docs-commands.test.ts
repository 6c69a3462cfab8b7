// Every command that README and docs show with a `$` before it runs, and README's answers are the
// real ones.
import { spawn } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Channel } from 'amqplib';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { changeOf } from '../../src/shared/change.ts';
import { EVENT_CONTENT_TYPE, encodeEvent } from '../../src/shared/events.ts';
import { declareTopology } from '../../src/shared/topology.ts';
import { follow } from '../support/commands.ts';
import {
  addressesOf,
  applyDirectly,
  type Broker,
  cleanUp,
  createBroker,
  createDatabase,
  createFolder,
  type Database,
  drained,
  insertAccounts,
  onCleanUp,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

let database: Database;
let broker: Broker;
let url: string;
let channel: Channel;
/** For files that commands write. */
let folder: string;

beforeEach(async () => {
  database = await createDatabase();
  broker = createBroker();
  ({ url } = await startApiHere(database, broker));
  await startWorkerHere(database, broker);
  channel = await (await broker.connect()).createChannel();
  await declareTopology(channel, broker.topology);
  folder = await createFolder();
});
afterEach(cleanUp);

interface Shown {
  command: string;
  /** What follows it, without the indentation. */
  output: string;
}

async function commandsIn(file: string): Promise<Shown[]> {
  const text = await readFile(path.join(ROOT, file), 'utf8');
  return [...text.matchAll(/^ {4}\$ (.*)\n((?: {4}(?!\$ ).*\n)*)/gm)].map(([, command = '', output = '']) => ({
    command,
    output: output.replaceAll(/^ {4}/gm, '').trim(),
  }));
}

function start(command: string) {
  // As written, but for where the system is.
  const here = command.replaceAll('localhost:3000', url.slice('http://'.length));
  const env = { ...process.env, ...addressesOf(database, broker) };
  const isLoop = command.startsWith('until ');
  return follow(spawn('sh', ['-c', isLoop ? here : `exec ${here}`], { cwd: ROOT, env }));
}

/** Times, versions and counts differ from run to run. */
const shape = (text: string) =>
  text
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'TIME')
    .replaceAll(/(?<=(?:alice|bob):\d+:)[0-9a-z]{8}|(?<="(?:epoch|previousEpoch)":)\d{13}/g, 'EPOCH')
    .replaceAll(broker.namespace, 'balance');

it('runs the commands of the README, which answer as it says', async () => {
  const shown = await commandsIn('README.md');
  expect(shown.map(({ command }) => command.split(' ')[0])).toEqual([
    ...['npm', 'curl', 'curl', 'until', 'curl', 'curl', 'curl', 'curl', 'npm'],
  ]);
  const subscriber = shown.find(({ command }) => command.includes('subscriber')) as Shown;
  const subscribing = start(await script('example:subscriber'));
  await until('it gets what is published', () => probed(subscribing.output));
  for (const { command, output } of shown) {
    if (command === subscriber.command) continue;
    const { code, out, err } = await start(command).whenEnded;
    expect({ command, code, err: code === 0 ? '' : err }).toEqual({ command, code: 0, err: '' });
    if (command.includes('curl')) expect(shape(out.trim())).toBe(shape(output));
    else expect(out.trim().split('\n').at(-1)).toBe(output);
  }
  await until('the last events came', () =>
    ['alice #4', 'bob #1'].every((change) => subscribing.output.out.includes(change)),
  );
  expect(linesByAccount(subscribing.output.out)).toEqual(linesByAccount(subscriber.output));
});

/** There is no order between accounts. */
function linesByAccount(output: string): string[] {
  const lines = shape(output.trim())
    .split('\n')
    .filter((line) => !line.includes(PROBE));
  const accountOf = (line: string) => /(\w+) #\d+/.exec(line)?.[1] ?? '';
  return lines.sort((one, other) => accountOf(one).localeCompare(accountOf(other)));
}

const PROBE = 'probe';
let probes = 0;

/**
 * An event of an account of nobody's: the subscriber says when it is there, unlike when it is
 * bound.
 */
async function probed({ out }: { out: string }): Promise<boolean> {
  if (out.includes(PROBE)) return true;
  probes += 1;
  const event = encodeEvent(
    changeOf(PROBE, 'balance.credited', new Date(), {
      ...{ version: probes, epoch: 1, previousEpoch: 1, asset: 'UNIT' },
      ...{ amount: 1, heldChange: 0, balance: probes, held: 0 },
    }),
  );
  channel.publish(broker.topology.eventsExchange, 'balance.credited', event, { contentType: EVENT_CONTENT_TYPE });
  return false;
}

/** The file behind an npm script: npm itself would be between us and its signals. */
async function script(name: string): Promise<string> {
  return JSON.parse(await readFile(path.join(ROOT, 'package.json'), 'utf8')).scripts[name];
}

/** Each command is a process or two, one after the other: seconds each on a busy machine. */
const ALL_COMMANDS_MS = 400_000;

it(
  'runs the commands of the other pages',
  async () => {
    await insertAccounts(database, 'alice');
    for (let version = 1; version <= 200; version += 1) await applyDirectly(database.pool, 'alice', version);
    await drained(database);
    await until('the chain has caught up', async () => {
      const { rows } = await database.pool.query('SELECT max(last_version) AS version FROM ledger_chain');
      return rows[0].version === 200;
    });
    const queue = `${broker.namespace}-billing`;
    onCleanUp(() => channel.deleteQueue(queue));
    // It only lags, so that the command ends with 0.
    await writeFile(path.join(folder, 'billing.csv'), `alice,199,${await epochOf('alice')}\n`);
    let keyId = '';
    const pages = await Promise.all(
      ['api', 'events', 'run', 'secure', 'observe', 'recover', 'retention'].map((page) =>
        commandsIn(`docs/${page}.md`),
      ),
    );
    const shown = pages.flat();
    expect(shown.length).toBeGreaterThanOrEqual(11);
    for (const { command } of shown) {
      const here = command
        .replaceAll(/heads-2026-11-2\d\.jsonl/g, path.join(folder, 'heads.jsonl'))
        .replaceAll(/archive-alice[\w.-]*/g, (file) => path.join(folder, file))
        .replace('billing.csv', path.join(folder, 'billing.csv'))
        .replace('--queue billing', `--queue ${queue}`)
        .replace('XVYuFwTqVzRk', keyId);
      const { code, out, err } = await start(here).whenEnded;
      expect({ command, code, err: code === 0 ? '' : err }).toEqual({ command, code: 0, err: '' });
      if (!command.includes('>')) expect(out.trim(), command).not.toBe('');
      keyId ||= /Key (\S{12}) of billing/.exec(err)?.[1] ?? '';
    }
  },
  ALL_COMMANDS_MS,
);

async function epochOf(accountId: string): Promise<number> {
  return (await database.pool.query('SELECT epoch FROM account WHERE account_id = $1', [accountId])).rows[0].epoch;
}
