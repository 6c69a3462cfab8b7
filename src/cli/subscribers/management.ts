// Queries RabbitMQ's management plugin for commands.
import {
  type BoundQueue,
  type Management,
  type QueueState,
  readBoundQueues,
  readQueues,
} from '../../shared/broker-management.ts';
import { SettingsError } from '../../shared/config.ts';

export interface Known {
  /** Bound to the exchange. */
  bound: BoundQueue[];
  /** Every queue, by name. */
  states: Map<string, QueueState>;
}

/** @throws SettingsError that says what to change. */
export async function readKnown(management: Management, exchange: string): Promise<Known> {
  try {
    return { bound: await readBoundQueues(management, exchange), states: await readQueues(management) };
  } catch (error) {
    throw new SettingsError(`AMQP_MANAGEMENT_URL: ${(error as Error).message}`, { cause: error });
  }
}
