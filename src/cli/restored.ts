// highload-balance restored: begins a new epoch by hand. Its --help is the reference.

import { runCommand, withDatabase } from './command.ts';
import { commandLine } from './command-line.ts';
import { print } from './output.ts';

const HELP = `usage: highload-balance restored [--json]

Begins a new epoch, as the service itself does after a start, a promotion, a restored dump or a switch to another
server. Run it if the database returned to an older state without a trace: a machine that was resumed with its
memory, or rolled back to a snapshot while it ran. Run it before the processes start, so that no change carries
the epoch of the lost history.

It also restarts the time for which the idempotency keys in the database are kept (IDEMPOTENCY_KEYS_KEPT_MS). A
restored database takes them for older than they are and would soon remove some: then a change that survived and
that a client sends again would be applied twice.

Safe to run when it is not needed, and any number of times: subscribers continue. It changes no account and no
entry. It does not excuse kept heads that are no longer in the chains: for that, run verify --cut-at EPOCH with
the epoch that this prints.

--json    one JSON document on standard output: epoch, and previousEpoch, null if there was none

The database is the one at DATABASE_URL, as the owner of its tables; unset, the one of this clone's npm start.

exit code: 0 done; 1 refused; 2 called incorrectly`;

/** Longer than a statement of the service that waits for a lock. */
const STATEMENT_TIMEOUT_MS = 60_000;

// One statement: its snapshot still shows the previous epoch.
const RAISE = `
  WITH kept AS (UPDATE idempotency_rotation SET since = clock_timestamp())
  SELECT (SELECT max(epoch.epoch) FROM epoch) AS "previousEpoch", raise_epoch() AS epoch`;

await runCommand(async () => {
  const { json } = commandLine({ json: { type: 'boolean' } }, HELP);
  await withDatabase(
    'restored',
    async (client) => {
      const { epoch, previousEpoch } = (await client.query(RAISE)).rows[0];
      if (json) return print(JSON.stringify({ epoch, previousEpoch }));
      const before = previousEpoch === null ? 'There was no epoch' : `The epoch was ${previousEpoch}`;
      print(`${before}; it is now ${epoch}. If commits were lost: verify --heads FILE --cut-at ${epoch}`);
    },
    { statementTimeoutMs: STATEMENT_TIMEOUT_MS },
  );
});
