// Whether the system has healed and caught up, and if not, what is stuck.
import { closeConnection, connect } from '../../src/shared/broker.ts';
import { verify } from '../../src/shared/verification.ts';
import { type FaultContext, relayOf, wasWiped } from './faults/fault.ts';
import type { Fleet, Member } from './fleet.ts';
import { createHttpClient } from './http.ts';
import type { Subscriber } from './subscriber.ts';

const ANSWER_TIMEOUT_MS = 5000;

async function readyz({ port }: Member): Promise<{ status: number; body: unknown } | undefined> {
  const http = createHttpClient();
  try {
    const reply = await http.send(port, 'GET', '/readyz', { timeoutMs: ANSWER_TIMEOUT_MS });
    return reply.kind === 'answer' ? { status: reply.status, body: reply.body } : undefined;
  } finally {
    http.close();
  }
}

/** Every process is ready, exactly one relay is active, and it has a broker that takes its events. */
export async function isHealthy({ members, apis }: Fleet, subscriber: Subscriber): Promise<boolean> {
  const answers = await Promise.all(members.map(readyz));
  const relays = (await Promise.all(apis.map(relayOf))).filter((relay) => relay?.active);
  return (
    subscriber.isConnected &&
    answers.every((answer) => answer?.status === 200) &&
    relays.length === 1 &&
    relays[0]?.ledger.broker === 'connected'
  );
}

/** The version of every account. */
export async function acceptedVersions({ pool }: FaultContext): Promise<Map<string, number>> {
  const { rows } = await pool.query('SELECT account_id AS id, version FROM account');
  return new Map(rows.map(({ id, version }) => [id, version]));
}

/** Holds that expire have expired, so that nothing changes any more. */
export async function isNoneToExpire(pool: FaultContext['pool']): Promise<boolean> {
  const { rows } = await pool.query("SELECT FROM hold WHERE status = 'active' AND expires_at IS NOT NULL LIMIT 1");
  return rows.length === 0;
}

/** All versions up to these are in the ledger, and the subscriber has seen their events. */
export async function caughtUp(
  { pool, subscriber, evidence }: FaultContext,
  versions: ReadonlyMap<string, number>,
): Promise<boolean> {
  const { rows } = await pool.query<{ id: string; entries: number }>(
    `SELECT wanted.id, count(*) AS entries
     FROM unnest($1::text[], $2::bigint[]) AS wanted (id, version)
     JOIN ledger ON ledger.account_id = wanted.id AND ledger.version <= wanted.version
     GROUP BY wanted.id`,
    [[...versions.keys()], [...versions.values()]],
  );
  return (
    rows.length === versions.size &&
    rows.every(({ id, entries }) => entries === (versions.get(id) ?? 0) + 1) &&
    subscriber.hasRead(versions, (...change) => wasWiped(evidence, ...change))
  );
}

/** Everything that may explain why nothing moves. */
export async function describeStuck({ pool, fleet, broker, topology, subscriber }: FaultContext): Promise<string> {
  const database = (async () => {
    const client = await pool.connect();
    try {
      const { pendingChanges, offenders } = await verify(client);
      const pending = await client.query(
        `SELECT position, account_id, version, created_at FROM outbox
         WHERE NOT EXISTS (SELECT FROM ledger WHERE (ledger.account_id, ledger.version) = (outbox.account_id, outbox.version))
         ORDER BY position LIMIT 3`,
      );
      return { pendingChanges, offenders: offenders.slice(0, 3), pending: pending.rows };
    } finally {
      client.release();
    }
  })().catch(String);
  const queue = (async () => {
    const connection = await connect(broker.url, 'test');
    try {
      const channel = await connection.createChannel();
      channel.on('error', () => {});
      return await Promise.race([
        channel.checkQueue(topology.ledgerQueue),
        new Promise<string>((resolve) => setTimeout(resolve, ANSWER_TIMEOUT_MS, 'the ledger queue does not answer')),
      ]);
    } finally {
      await closeConnection(connection);
    }
  })().catch(String);
  const processes = Promise.all(
    fleet.members.map(async (member) => [member.name, (await readyz(member)) ?? 'no answer']),
  ).then(Object.fromEntries);
  return JSON.stringify({
    database: await database,
    queue: await queue,
    processes: await processes,
    subscriber: subscriber.isConnected ? 'connected' : 'disconnected',
  });
}
