// Shared by the operators' commands: options, the database they work on, and how they end.
import type { ChannelModel } from 'amqplib';
import type pg from 'pg';
import { closeConnection, connect } from '../shared/broker.ts';
import { describeBrokerFailure } from '../shared/broker-failure.ts';
import { type BrokerSettings, readBrokerSettings, readDatabaseSettings, SettingsError } from '../shared/config.ts';
import { DatabaseError, describeConnectionFailure, openClient } from '../shared/database.ts';
import { type Runtime, readRuntime, START_COMMAND } from '../shared/runtime.ts';
import { isReadOnly, isTableMissing } from '../shared/sqlstate.ts';
import { UsageError } from './arguments.ts';
import { CALLED_WRONGLY } from './command-line.ts';
import { failWithOutput } from './output.ts';
import { describeStandby, type Standby, standbyOf } from './standby.ts';

/** Exit code of an interrupted command, as in shells for SIGINT. */
export const INTERRUPTED = 130;

/**
 * Connects to the database at DATABASE_URL; without that, to the one of this clone's npm start.
 * Reports a standby on standard error and to `work`.
 * @param options.statementTimeoutMs for work that is quick or stuck. @throws SettingsError that says what to change.
 */
export async function withDatabase(
  service: string,
  work: (client: pg.Client, standby: Standby | undefined) => Promise<void>,
  { statementTimeoutMs = 0 }: { statementTimeoutMs?: number } = {},
): Promise<void> {
  const { DATABASE_URL, DATABASE_URL_FILE } = process.env;
  const runtime = DATABASE_URL || DATABASE_URL_FILE ? undefined : runtimeHere('DATABASE_URL');
  const { databaseUrl } = readDatabaseSettings({
    DATABASE_URL: DATABASE_URL || runtime?.databaseUrl,
    DATABASE_URL_FILE,
  });
  // A standby too: most commands only read, and it refuses what does not.
  const client = await openClient(databaseUrl, service, { access: 'any server', statementTimeoutMs }).catch((error) => {
    const hint =
      runtime && START_COMMAND ? `\nIt belongs to ${START_COMMAND} in this folder: is that still running?` : '';
    throw new SettingsError(`${describeConnectionFailure(databaseUrl, error)}${hint}`);
  });
  client.on('error', (error) => lost.add(error)); // the query in flight fails with it, or the next one with another
  try {
    const standby = await standbyOf(client);
    if (standby) console.error(describeStandby(standby));
    await work(client, standby);
  } catch (error) {
    if (!isOfDatabase(error)) throw error;
    throw new SettingsError(`PostgreSQL: ${error.message}${hintOf(error)}`, { cause: error });
  } finally {
    await client.end();
  }
}

function hintOf(error: Error): string {
  if (isTableMissing(error)) return '. Run migrate first';
  return isReadOnly(error) ? '. Name the primary in DATABASE_URL' : ''; // a standby, or so set
}

/** Undefined where there is no way to start one here. @throws SettingsError when none runs. */
function runtimeHere(variable: string): Runtime | undefined {
  const runtime = readRuntime();
  if (runtime || !START_COMMAND) return runtime;
  throw new SettingsError(
    `Nothing is running here: run ${START_COMMAND}, or set ${variable} to a server that runs elsewhere.`,
  );
}

/** The broker at AMQP_URL; without that, the one of this clone's npm start. @throws SettingsError */
export function brokerOfCommand(): BrokerSettings {
  const { AMQP_URL, AMQP_URL_FILE } = process.env;
  const runtime = AMQP_URL || AMQP_URL_FILE ? undefined : runtimeHere('AMQP_URL');
  return readBrokerSettings({
    AMQP_URL: AMQP_URL || runtime?.amqpUrl,
    AMQP_URL_FILE,
    AMQP_NAMESPACE: process.env.AMQP_NAMESPACE || runtime?.namespace,
    AMQP_MANAGEMENT_URL: process.env.AMQP_MANAGEMENT_URL,
  });
}

/** Connects to a broker for as long as the work takes. @throws SettingsError that says what to change. */
export async function withBroker(
  amqpUrl: string,
  service: string,
  work: (connection: ChannelModel) => Promise<void>,
): Promise<void> {
  let connection: ChannelModel | undefined;
  try {
    connection = await connect(amqpUrl, service);
    await work(connection);
  } catch (error) {
    if (error instanceof SettingsError || error instanceof UsageError || isOfDatabase(error)) throw error;
    throw new SettingsError(describeBrokerFailure(amqpUrl, error));
  } finally {
    if (connection) await closeConnection(connection);
  }
}

/** What ended connections to PostgreSQL: may be the plain error of a socket. */
const lost = new WeakSet<Error>();

/** Whether a failure is PostgreSQL's, or of the connection to it: pg gives both no common class. */
export function isOfDatabase(error: unknown): error is Error {
  return (
    lost.has(error as Error) ||
    error instanceof DatabaseError ||
    /^(Connection terminated|Client has encountered|Query read timeout)/.test(String((error as Error).message))
  );
}

/**
 * Exit code 2 for incorrect usage, 1 for a wrong setting or input: with a sentence, not a stack.
 */
export async function runCommand(command: () => Promise<void>): Promise<void> {
  failWithOutput();
  try {
    await command();
  } catch (error) {
    if (!(error instanceof SettingsError || error instanceof UsageError)) throw error;
    const hint = error instanceof UsageError && !error.message.includes('\n') ? '\n--help says more.' : '';
    console.error(`${error.message}${hint}`);
    process.exitCode = error instanceof UsageError ? CALLED_WRONGLY : 1;
  }
}
