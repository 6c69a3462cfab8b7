// What a person sees when the local system runs.
import path from 'node:path';
import { brokerUrls } from '../shared/broker-urls.ts';
import { IS_CLONE, type Runtime } from '../shared/runtime.ts';
import { topologyOf } from '../shared/topology.ts';
import { withoutPassword } from '../shared/without-password.ts';
import type { Shown } from './first-update.ts';

export function screen(runtime: Runtime, shown: Shown | undefined, dir: string, auth: string): string {
  const { url, databaseUrl, amqpUrl, namespace } = runtime;
  const command = (name: string) => (IS_CLONE ? `npm run ${name}` : `npx highload-balance ${name}`);
  const isOpen = auth === 'off';
  const key = isOpen ? '' : ' -H "Authorization: Bearer $BALANCE_TOKEN"';
  const createKey = `export BALANCE_TOKEN=$(${IS_CLONE ? 'npm run --silent keys --' : 'npx highload-balance keys'} create CLIENT --scopes read,write,admin)`;
  return `
  Running at ${url}
${shown ? `\n  ${shown.command}\n  ${shown.answer}\n` : ''}
  Console      ${url}/console
  API          ${url}/docs
  API keys     ${isOpen ? 'off: for anyone on this machine (AUTH=required asks for them)' : createKey}
  History      curl -s ${url}/v1/accounts/${shown ? 'demo' : 'ACCOUNT'}/entries${key}
  Events       ${IS_CLONE ? 'npm run example:subscriber' : "subscribe() of 'highload-balance/client/events'"}
  Proof        ${command('verify')}
  Database     ${withoutPassword(databaseUrl)}
  RabbitMQ     ${brokerUrls(amqpUrl).map(withoutPassword).join(', ')} (exchange ${topologyOf(namespace).eventsExchange})
  Passwords    ${path.join(dir, 'runtime.json')}, for this user alone
  Data, logs   ${dir}
  Stop         Ctrl-C; the next start continues with the same balances
`;
}
