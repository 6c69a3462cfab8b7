// npm run --silent heads: the chain head of every account, as JSON lines to keep elsewhere. `npm
// run verify -- --heads FILE` later proves that nothing up to them was rewritten.
import { once } from 'node:events';
import { listChainHeads } from '../shared/chain-head.ts';
import { runCommand, withDatabase } from './command.ts';
import { takesNoOptions } from './command-line.ts';
import { write } from './output.ts';

const HELP = `usage: highload-balance heads

Prints the chain head of every account that has one, as JSON lines. Keep them where the database's administrators cannot
write; highload-balance verify --heads FILE compares them. Works on a standby too, for what it has replayed, and says
so on standard error.`;

await runCommand(async () => {
  takesNoOptions(HELP);
  await withDatabase('heads', async (client) => {
    for await (const heads of listChainHeads(client)) {
      const lines = heads.map((head) => `${JSON.stringify(head)}\n`).join('');
      if (!write(lines)) await once(process.stdout, 'drain');
    }
  });
});
