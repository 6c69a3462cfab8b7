import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** A minute or two each, for most of it waiting: begun first, they are over when the others are. */
const LONG = [
  'broker-link',
  'broker-loss',
  'console-truth',
  'kubernetes',
  'local-start',
  'relay',
  'replay',
  'resumed-subscriber',
  'shares',
  'sick-subscriber',
  'verification',
];

class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const isLong = ({ moduleId }: TestSpecification) => LONG.some((name) => moduleId.endsWith(`/${name}.test.ts`));
    const { long = [], short = [] } = Object.groupBy(await super.sort(files), (file) =>
      isLong(file) ? 'long' : 'short',
    );
    return [...long, ...short];
  }
}

// `include` stands in the projects only: with `extends`, vitest would merge it and run each file twice.
export default defineConfig({
  test: {
    globalSetup: ['test/support/global-setup.ts'],
    sequence: { sequencer: LongFirst },
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 60_000 } },
      {
        test: {
          name: 'integration',
          include: ['test/integration/**/*.test.ts'],
          setupFiles: ['test/support/leaks.ts'],
          // A busy machine takes many times as long; what waits for a condition has a limit of its own.
          testTimeout: 180_000,
          hookTimeout: 300_000,
          // They wait for half of the time: for servers to start, to notice, to give up.
          maxWorkers: 3,
        },
      },
      {
        test: {
          name: 'alone',
          include: ['test/alone/**/*.test.ts'],
          testTimeout: 60_000,
          // They measure CPU time, which takes longer where caches are shared.
          sequence: { groupOrder: 1 },
          maxWorkers: 1,
        },
      },
      {
        test: {
          name: 'chaos',
          include: ['test/chaos/**/*.test.ts'],
          testTimeout: 400_000,
          hookTimeout: 180_000,
          // It proves what survives, not how fast: alone, so that servers come back in time.
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
