// What commands for operators have in common: options, the database they work on, and how they end.
import { type ParseArgsOptionsConfig, parseArgs } from 'node:util';
import type { ChannelModel } from 'amqplib';
import type pg from 'pg';
import { readRuntime } from '../local/runtime.ts';
import { closeConnection, connect } from '../shared/broker.ts';
import { describeBrokerFailure } from '../shared/broker-failure.ts';
import { readBrokerSettings, readDatabaseSettings, SettingsError } from '../shared/config.ts';
import { DatabaseError, describeConnectionFailure, openClient } from '../shared/database.ts';

/** Exit code of a command that was interrupted, as shells have it for SIGINT. */
export const INTERRUPTED = 130;

/** Thrown when the command was called in a wrong way; says how it is called. */
export class UsageError extends Error {}

/** @throws UsageError with the help, also for an argument that is no option. */
export function readOptions<Options extends ParseArgsOptionsConfig>(options: Options, help: string) {
  try {
    return parseArgs({ options }).values;
  } catch (cause) {
    throw new UsageError(`${(cause as Error).message}\n\n${help}`, { cause });
  }
}

/** By SQLSTATE. */
const HINTS: Record<string, string> = {
  '42P01': '. Run migrate first', // undefined table
};

/**
 * Connects to the database at DATABASE_URL; without that, to the one of this clone's npm start.
 * @param options.statementTimeoutMs for work that is quick or stuck. @throws SettingsError that says what to change.
 */
export async function withDatabase(
  service: string,
  work: (client: pg.Client) => Promise<void>,
  { statementTimeoutMs = 0 }: { statementTimeoutMs?: number } = {},
): Promise<void> {
  const { databaseUrl } = readDatabaseSettings({
    DATABASE_URL: process.env.DATABASE_URL || readRuntime()?.databaseUrl,
  });
  // A standby too: most commands only read, and it refuses those that do not.
  const client = await openClient(databaseUrl, service, { access: 'any server', statementTimeoutMs }).catch((error) => {
    throw new SettingsError(describeConnectionFailure(databaseUrl, error));
  });
  client.on('error', (error) => lost.add(error)); // the query in flight fails with it, or the next one with another
  try {
    await work(client);
  } catch (error) {
    if (!isOfDatabase(error)) throw error;
    const hint = HINTS[(error as { code?: string }).code ?? ''] ?? '';
    throw new SettingsError(`PostgreSQL: ${error.message}${hint}`, { cause: error });
  } finally {
    await client.end();
  }
}

/** The broker at AMQP_URL; without that, the one of this clone's npm start. @throws SettingsError */
export function brokerOfCommand(): { amqpUrl: string; amqpNamespace: string } {
  const runtime = process.env.AMQP_URL ? undefined : readRuntime();
  return readBrokerSettings({
    AMQP_URL: process.env.AMQP_URL || runtime?.amqpUrl,
    AMQP_NAMESPACE: process.env.AMQP_NAMESPACE || runtime?.namespace,
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

/** Exit code 2 when it was called in a wrong way, 1 when a setting or an input is wrong: with a sentence, not a stack. */
export async function runCommand(command: () => Promise<void>): Promise<void> {
  try {
    await command();
  } catch (error) {
    if (!(error instanceof SettingsError || error instanceof UsageError)) throw error;
    const hint = error instanceof UsageError && !error.message.includes('\n') ? '\n--help says more.' : '';
    console.error(`${error.message}${hint}`);
    process.exitCode = error instanceof UsageError ? 2 : 1;
  }
}
