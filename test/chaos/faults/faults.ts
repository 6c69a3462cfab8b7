// Every fault of the suite.
import type { Fault } from './fault.ts';
import { linkFaults } from './link-faults.ts';
import { processFaults } from './process-faults.ts';
import { serverFaults } from './server-faults.ts';

export const faults: readonly Fault[] = [...processFaults, ...linkFaults, ...serverFaults];
