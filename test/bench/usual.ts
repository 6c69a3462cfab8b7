// What a good developer writes first: express.json(), pg.Pool, one UPDATE a request, res.json(). With CONTRACT=outbox
// the same statement also writes what our events and ledger need, an outbox row: as a transaction of four statements,
// which is more common, it is slower, because the row of the account is locked from the first to the last. A transfer: a transaction that locks the two
// accounts in order, looks at the balance and updates both.
import { once } from 'node:events';
import express, { type RequestHandler } from 'express';
import pg from 'pg';
import { z } from 'zod';

const POOL_MAX = 10;

const body = z.object({ accountId: z.string().min(1).max(64), amount: z.int() });

const UPDATE = `
  UPDATE account SET balance = balance + $2
  WHERE account_id = $1 AND balance + $2 >= 0
  RETURNING balance`;

const UPDATE_WITH_OUTBOX = `
  WITH changed AS (
    UPDATE account
    SET balance = balance + $2::bigint, version = version + 1, updated_at = greatest(clock_timestamp(), updated_at)
    WHERE account_id = $1 AND balance + $2::bigint >= 0
    RETURNING balance, version, epoch, asset, updated_at
  ), written AS (
    INSERT INTO outbox (account_id, version, epoch, previous_epoch, amount, balance, created_at, type, asset)
    SELECT $1, version, epoch, epoch, $2::bigint, balance, updated_at,
           CASE WHEN $2::bigint > 0 THEN 'balance.credited' ELSE 'balance.debited' END, asset
    FROM changed
  )
  SELECT balance, version FROM changed`;

const transferBody = z.object({
  from: z.string().min(1).max(64),
  to: z.string().min(1).max(64),
  amount: z.int().min(1),
});

const LOCK_BOTH = `
  SELECT account_id, balance, overdraft_limit FROM account WHERE account_id IN ($1, $2) ORDER BY account_id FOR UPDATE`;

const MOVE = 'UPDATE account SET balance = balance + $2 WHERE account_id = $1 RETURNING balance';

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: POOL_MAX });

const update: RequestHandler = async (request, response) => {
  const { accountId, amount } = body.parse(request.body);
  const { rows } = await pool.query(UPDATE, [accountId, amount]);
  if (rows.length === 0) response.status(400).json({ code: 'insufficient_funds' });
  else response.json({ accountId, amount, balance: Number(rows[0].balance) });
};

const updateWithOutbox: RequestHandler = async (request, response) => {
  const { accountId, amount } = body.parse(request.body);
  const { rows } = await pool.query(UPDATE_WITH_OUTBOX, [accountId, amount]);
  if (rows.length === 0) response.status(400).json({ code: 'insufficient_funds' });
  else {
    const [{ balance, version }] = rows;
    response.json({ accountId, amount, balance: Number(balance), version: Number(version) });
  }
};

/** `run` ends the transaction itself, unless it throws. */
async function inTransaction(run: (client: pg.PoolClient) => Promise<void>): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query('BEGIN');
    await run(client);
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  } finally {
    client.release();
  }
}

const transfer: RequestHandler = async (request, response) => {
  const { from, to, amount } = transferBody.parse(request.body);
  await inTransaction(async (client) => {
    const { rows } = await client.query(LOCK_BOTH, [from, to]);
    const payer = rows.find(({ account_id }) => account_id === from);
    const isCovered = rows.length === 2 && Number(payer.balance) + Number(payer.overdraft_limit) >= amount;
    const left = isCovered ? await client.query(MOVE, [from, -amount]) : undefined;
    const got = isCovered ? await client.query(MOVE, [to, amount]) : undefined;
    await client.query(isCovered ? 'COMMIT' : 'ROLLBACK');
    if (left && got) response.json({ from: Number(left.rows[0].balance), to: Number(got.rows[0].balance) });
    else response.status(400).json({ code: 'insufficient_funds' });
  });
};

const app = express();
app.use(express.json());
app.post('/v1/transfers', transfer);
app.post('/v1/balance-updates', process.env.CONTRACT === 'outbox' ? updateWithOutbox : update);
app.listen(Number(process.env.PORT), '127.0.0.1', () => process.send?.('ready'));
await once(process, 'disconnect');
process.exit();
