// `npm start -- --reset`: starts over. Deletes what `npm start` keeps in its folder, after a person
// agreed. Queues on a shared broker are deleted later, by the code that connects to it.
import { existsSync } from 'node:fs';
import path from 'node:path';
import { topologyOf } from '../shared/topology.ts';
import type { Confirm } from './confirm.ts';
import { removeDockerBroker } from './docker-broker.ts';
import { SHARED_DIR } from './local-database.ts';
import { deletePostgres } from './postgres.ts';
import { deletePrivateBroker } from './private-broker.ts';
import { SetupProblem } from './setup-problem.ts';

/** `ask` a person; `agreed` on the command line. */
export type Reset = 'ask' | 'agreed';

/**
 * Nothing may be running in the folder except servers left by a killed run: those are ended.
 * @param confirm undefined if there is no terminal.
 * @throws SetupProblem unless a person agreed; then nothing was changed.
 */
export async function reset(
  dir: string,
  env: NodeJS.ProcessEnv,
  wanted: Reset,
  confirm: Confirm | undefined,
  say: (line: string) => void,
): Promise<void> {
  if (env.DATABASE_URL) {
    throw new SetupProblem(
      '--reset only deletes data that npm start keeps itself, but DATABASE_URL names your own database: use an empty one, or unset it.',
    );
  }
  const { ledgerQueue, deadLetters } = topologyOf(env.AMQP_NAMESPACE || 'balance');
  const what =
    `This permanently deletes what npm start keeps in ${dir}: all accounts and their history, and its RabbitMQ with all queues. ` +
    `On an external RabbitMQ it deletes the queues ${ledgerQueue} and ${deadLetters}.`;
  if (wanted === 'ask' && !(await confirm?.(`${what}\nStart over?`, 'no'))) {
    throw new SetupProblem(
      confirm ? 'Nothing was changed.' : `${what} Nothing was changed. To do it: npm start -- --reset --yes`,
    );
  }
  await deletePostgres(dir, SHARED_DIR);
  await deletePrivateBroker(path.join(dir, 'rabbitmq'));
  // Its volume is found by the name of the folder alone, so it is looked for in any case.
  if (existsSync(dir)) await removeDockerBroker(dir);
  say('Reset: the data of earlier runs was deleted');
}
