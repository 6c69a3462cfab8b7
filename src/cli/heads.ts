// npm run --silent heads: the chain head of every account, as JSON lines to keep elsewhere. `npm run verify -- --heads FILE`
// later proves that nothing up to them was rewritten.
import { once } from 'node:events';
import { listChainHeads } from '../shared/chain-head.ts';
import { readOptions, runCommand, withDatabase } from './command.ts';

const HELP = `npm run --silent heads

Prints the chain head of every account that has one, as JSON lines. Keep them where the database's administrators cannot
write; npm run verify -- --heads FILE compares.`;

await runCommand(async () => {
  const { help } = readOptions({ help: { type: 'boolean' } }, HELP);
  if (help) return console.log(HELP);
  await withDatabase('heads', async (client) => {
    for await (const heads of listChainHeads(client)) {
      const lines = heads.map((head) => `${JSON.stringify(head)}\n`).join('');
      if (!process.stdout.write(lines)) await once(process.stdout, 'drain');
    }
  });
});
