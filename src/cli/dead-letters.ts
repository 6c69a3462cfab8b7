// npm run dead-letters: lists what the worker refused, puts it back or discards it. Its --help is
// the reference.
import { topologyOf } from '../shared/topology.ts';
import { brokerOfCommand, runCommand, withBroker } from './command.ts';
import { comesBack, type DeadLetter, type Reason } from './dead-letter.ts';
import { type DeadLetterQueue, type Look, openDeadLetters, type Removal } from './dead-letter-queue.ts';
import { type DeadLetterRequest, HELP, parseRequest } from './dead-letter-request.ts';
import { print } from './output.ts';

const NOT_ALL = 'not all of them: there was no time (--seconds), or another process is reading them. Run it again';

/** @returns whether all of it was done. */
async function run(queue: DeadLetterQueue, request: DeadLetterRequest, deadlineMs: number): Promise<boolean> {
  const { command, selection, limit, json } = request;
  if (command === 'list') {
    const look = await queue.look(selection, limit, deadlineMs);
    print(json ? JSON.stringify(look) : describeLook(look));
    return look.complete;
  }
  const removal = await (command === 'put-back'
    ? queue.putBack(selection, deadlineMs)
    : queue.discard(selection, deadlineMs));
  print(json ? JSON.stringify({ command, ...removal }) : describeRemoval(command, removal));
  return removal.complete && removal.missing.length === 0;
}

function describeLook({ queue, messages, letters, complete }: Look): string {
  const lines = letters.map((letter) =>
    [letter.id, letter.reason.padEnd(14), letter.deadAt ?? '-', subjectOf(letter), letter.excerpt].join('  '),
  );
  const shown = letters.length === messages ? '' : `, ${letters.length} shown`;
  const stopped = complete ? '' : `; ${NOT_ALL}`;
  return [...lines, `${queue}: ${messages} dead letters${shown}${stopped}`].join('\n');
}

function subjectOf({ events, eventCount, bytes }: DeadLetter): string {
  const [first] = events;
  if (!first) return `${bytes} bytes`;
  return `${first.accountId}:${first.version}${eventCount > 1 ? ` and ${eventCount - 1} more` : ''}`;
}

function describeRemoval(command: 'put-back' | 'discard', removal: Removal): string {
  const { queue, removed, byReason, missing, complete } = removal;
  const counts = Object.entries(byReason).map(([reason, count]) => `${count} ${reason}`);
  const lines = [
    `${queue}: ${command === 'put-back' ? 'put back' : 'discarded'} ${removed} dead letters${removed > 0 ? ` (${counts.join(', ')})` : ''}`,
    ...missing.map((id) => `no dead letter has the id ${id}`),
  ];
  if (command === 'put-back' && Object.keys(byReason).some((reason) => comesBack(reason as Reason))) {
    lines.push('the worker refuses forged and malformed letters again: they return within seconds');
  }
  if (!complete) lines.push(NOT_ALL);
  return lines.join('\n');
}

await runCommand(async () => {
  const request = parseRequest(process.argv.slice(2));
  if (request === 'help') return console.log(HELP);
  const deadlineMs = performance.now() + request.seconds * 1000;
  const { amqpUrl, amqpNamespace } = brokerOfCommand();
  await withBroker(amqpUrl, 'dead-letters', async (connection) => {
    const queue = await openDeadLetters(connection, topologyOf(amqpNamespace));
    if (!(await run(queue, request, deadlineMs))) process.exitCode = 1;
  });
});
