// For docker-compose.yml: `secrets.ts FOLDER` generates missing passwords, and writes what each
// service has to know into a folder of its own. `secrets.ts FOLDER show NAME` prints what a person
// needs. Idempotent.
import path from 'node:path';
import { databaseUrlOf, rolesScript } from './database-roles.ts';
import { keptPasswords, type Passwords } from './passwords.ts';
import { rabbitmqDefinitions } from './rabbitmq-users.ts';
import { replaceFile } from './replace-file.ts';

/** Names that the services have for each other. */
const [POSTGRES, RABBITMQ] = ['postgres:5432', 'rabbitmq:5672'];
const NAMESPACE = 'balance';
/** Where every container finds its folder. */
const MOUNTED = '/run/secrets';

function filesOf({ database, broker, grafana }: Passwords): Record<string, string> {
  const amqpUrl = (user: keyof typeof broker) => `amqp://${user}:${broker[user]}@${RABBITMQ}`;
  const definitions = rabbitmqDefinitions(broker, NAMESPACE);
  return {
    'roles/roles.sql': rolesScript(database),
    'rabbitmq/definitions.json': JSON.stringify(definitions, undefined, 2),
    'rabbitmq/rabbitmq.conf': `load_definitions = ${MOUNTED}/definitions.json\n`,
    'owner/database-url': databaseUrlOf('owner', database.owner, POSTGRES),
    'api/database-url': databaseUrlOf('api', database.api, POSTGRES),
    'api/amqp-url': amqpUrl('api'),
    'worker/database-url': databaseUrlOf('worker', database.worker, POSTGRES),
    'worker/amqp-url': amqpUrl('worker'),
    'operator/database-url': databaseUrlOf('operator', database.operator, POSTGRES),
    'operator/amqp-url': amqpUrl('operator'),
    'grafana/admin-password': grafana.admin,
  };
}

const { AMQP_PORT = '5673', MANAGEMENT_PORT = '15673' } = process.env;

/** On the machine that runs the containers. */
const SHOWN: Record<string, (passwords: Passwords) => string> = {
  subscriber: ({ broker }) => `amqp://subscriber:${broker.subscriber}@localhost:${AMQP_PORT}`,
  management: ({ broker }) => `http://operator:${broker.operator}@localhost:${MANAGEMENT_PORT}`,
  grafana: ({ grafana }) => grafana.admin,
};

const [folder, verb, name = ''] = process.argv.slice(2);
if (folder === undefined) throw new Error('Name the folder.');
const passwords = await keptPasswords(path.join(folder, 'kept', 'passwords.json'));
if (verb === undefined) {
  for (const [file, text] of Object.entries(filesOf(passwords))) await replaceFile(path.join(folder, file), text);
} else if (verb === 'show' && Object.hasOwn(SHOWN, name)) {
  console.log(SHOWN[name]?.(passwords));
} else {
  console.error(
    `Say which: ${Object.keys(SHOWN)
      .map((one) => `show ${one}`)
      .join(', ')}`,
  );
  process.exitCode = 2;
}
