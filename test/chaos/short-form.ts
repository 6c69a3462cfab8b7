// The short form of the fault suite, a part of npm test: one fault of each kind, always with the same draws.
import { faults } from './faults/faults.ts';
import type { SuiteOptions } from './suite.ts';

const SEED = 1;
const FAULTS = new Set([
  'api-kill',
  'relay-kill',
  'worker-kill',
  'database-stop',
  'broker-kill',
  'two-relays',
  'clock-step',
  'forged-events',
  'queue-deleted',
  'subscriber-full',
  'api-database-cut-before-answer',
  'api-database-cut-after-commit',
  'relay-broker-cut-before-confirm',
  'worker-broker-cut-before-ack',
  'worker-database-cut-after-commit',
]);

export const shortForm: Omit<SuiteOptions, 'say'> = {
  seed: Number(process.env.SEED ?? SEED),
  faults: faults.filter(({ name }) => FAULTS.has(name)),
  faultsMs: 15_000,
  strikesMin: 1,
  healMs: 90_000,
};
